import pickle

import pytest
import torch
from torch import nn

from gcnet.surgery.watching import watching

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


class Twice(nn.Module):
    def forward(self, x, *, factor=2.0):
        return x * factor


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such thing")


def add_one(module, args, output):
    return output + 1


def hooks_of(module):
    return [dict(getattr(module, kind)) for kind in HOOKS]


def test_each_call_is_seen_with_its_arguments_and_its_output():
    module, calls = Twice(), []
    with watching({"a": module}, lambda *call: calls.append(call)):
        y = module(torch.ones(2), factor=3.0)
        module(y)
    assert [(name, kwargs) for name, _, _, kwargs, _ in calls] == [("a", {"factor": 3.0}), ("a", {})]
    assert calls[0][1] is module
    assert calls[0][4] is y
    assert calls[1][2][0] is y
    module(y)
    assert len(calls) == 2


@pytest.mark.parametrize("training", [True, False])
def test_modes_stay_and_what_see_returns_does_not_matter(training):
    model = nn.Sequential(nn.Dropout(), Twice()).train(training)
    with watching(dict(model.named_modules()), lambda *_: "ignored", enter=lambda *_: "ignored"):
        assert isinstance(model(torch.ones(2)), torch.Tensor)
    assert all(module.training is training for module in model.modules())


def test_nothing_is_left_behind_after_an_error_of_the_model_or_of_the_watcher():
    model = nn.Sequential(Twice(), Fails())
    before = [hooks_of(module) for module in model.modules()]

    def refuse(*_):
        raise KeyError("seen enough")

    with pytest.raises(RuntimeError, match="no such thing"), watching(dict(model.named_modules()), lambda *_: None):
        model(torch.ones(2))
    with pytest.raises(KeyError), watching(dict(model.named_modules()), refuse):
        model(torch.ones(2))
    with pytest.raises(KeyError), watching(dict(model.named_modules()), lambda *_: None, enter=refuse):
        model(torch.ones(2))
    assert [hooks_of(module) for module in model.modules()] == before


def test_every_entry_is_followed_by_a_look_also_where_the_call_fails():
    model, events = nn.Sequential(Twice(), Fails()), []
    with (
        pytest.raises(RuntimeError),
        watching(
            dict(model.named_children()),
            lambda name, *rest: events.append((name, "left", rest[-1] is None)),
            enter=lambda name, *_: events.append((name, "entered")),
        ),
    ):
        model(torch.ones(2))
    assert events == [("0", "entered"), ("0", "left", False), ("1", "entered"), ("1", "left", True)]


def test_hooks_of_others_stay_and_run_before_the_look():
    module, seen = Twice(), []
    module.register_forward_pre_hook(lambda module, args: (args[0] + 10,))
    module.register_forward_hook(add_one)
    before = hooks_of(module)
    for outermost, first in ((False, 10.0), (True, 0.0)):
        with watching(
            {"": module},
            lambda *call: seen.append(call[-1].item()),
            enter=lambda *call: seen.append(call[2][0].item()),
            outermost=outermost,
        ):
            module(torch.tensor(0.0))
        assert seen == [first, 21.0]
        seen.clear()
    assert hooks_of(module) == before


def test_a_hook_that_came_with_an_unpickled_model_is_not_overwritten():
    module = Twice()
    module.register_forward_hook(add_one)
    module = pickle.loads(pickle.dumps(module))
    number = torch.utils.hooks.RemovableHandle.next_id  # the id that the next hook gets, in a process that starts anew
    module._forward_hooks = type(module._forward_hooks)({number: module._forward_hooks.popitem()[1]})
    with watching({"": module}, lambda *_: None):
        assert module(torch.tensor(1.0)).item() == 3
    assert module(torch.tensor(1.0)).item() == 3


def test_watching_can_be_nested_and_meet_one_module_under_two_names():
    module, seen = Twice(), []
    with watching({"a": module, "b": module}, lambda name, *_: seen.append(name)):
        with watching({"c": module}, lambda name, *_: seen.append(name)):
            module(torch.ones(1))
        module(torch.ones(1))
    assert seen == ["a", "b", "c", "a", "b"]
