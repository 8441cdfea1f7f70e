"""Where a block can sit in a model, and how it is put there without renaming anything.

Three ways, each leaving all existing parameter and buffer names as they are:

- a *slot*: the module calls an attribute that is free (our torchvision residual units, `nn.Sequential`);
- the *output* of a module: the block becomes its child and a forward hook passes the output through it;
- the *input* of a module: the same with a forward pre-hook.

The hooks are plain functions of this file, so deepcopy, pickle, torch.compile and torch.export follow them. They are
stored under ids that PyTorch never hands out: ids count up from 0 in every process, so a hook that came with an
unpickled model could otherwise be overwritten by the next one that somebody registers.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from gcnet.errors import RewriteError

_HOOK_ID = 1 << 48
_BACKWARD_HOOKS = ("_backward_pre_hooks", "_backward_hooks")
HOOKS = ("_forward_pre_hooks", "_forward_hooks", *_BACKWARD_HOOKS)
AFTER = "context"
BEFORE = "context_before"


@dataclass(frozen=True)
class Place:
    """One spot in a model.

    Attributes:
        host: Name of the module that carries the block.
        side: "slot", "output" or "input".
        child: Name of the block inside the host.
        channels: Channels of the map there; None if not known yet.
    """

    host: str
    side: Literal["slot", "output", "input"]
    child: str = AFTER
    channels: int | None = None

    @property
    def name(self) -> str:
        """Name of the block in the model."""
        return f"{self.host}.{self.child}" if self.host else self.child


def output_of(host: str) -> Place:
    return Place(host, "output", AFTER)


def input_of(host: str) -> Place:
    return Place(host, "input", BEFORE)


def attach(model: nn.Module, place: Place, block: nn.Module) -> None:
    """Put the block there.

    Raises:
        RewriteError: the place is taken, or the host cannot carry a child.
    """
    host = model.get_submodule(place.host)
    assert place.side != "slot" or hasattr(host, place.child), place  # units.with_slots made room
    there = getattr(host, place.child, None)
    if there is not None and not isinstance(there, nn.Module):
        raise RewriteError(
            f"{place.host or 'the model itself'} is a {type(host).__name__}, which has a {place.child!r} of its own; "
            "choose the module around it"
        )
    if there is not None:
        raise RewriteError(
            f"{place.host or 'the model itself'} already has a block at this place ({place.name}); "
            "insert into the model without it, or choose other stages, where or position"
        )
    if place.side == "output":
        if isinstance(host, nn.Sequential | nn.ModuleDict | nn.ModuleList) and not _calls_children(host):
            raise RewriteError(
                f"{place.host!r} is a {type(host).__name__} that runs its own children and cannot carry one more; "
                "choose a module inside it"
            )
        _hooks(host, "output")[_HOOK_ID] = pass_output_through
    elif place.side == "input":
        if isinstance(host, nn.Sequential | nn.ModuleDict | nn.ModuleList):
            raise RewriteError(f"{place.host!r} is a {type(host).__name__}; no block can be put before it")
        _hooks(host, "input")[_HOOK_ID] = pass_input_through
    vars(block)["gcnet_side"] = place.side  # what `detach` and `inserted` go by
    host.add_module(place.child, block)


def detach(model: nn.Module, name: str) -> None:
    """Take a block out again: one that `attach` put there, or any module, which leaves an identity behind."""
    block = model.get_submodule(name)
    host_name, _, child = name.rpartition(".")
    host = model.get_submodule(host_name)
    side = getattr(block, "gcnet_side", None)
    if side in ("output", "input"):
        _hooks(host, side).pop(_HOOK_ID, None)
    if side == "slot":
        host.register_module(child, None)
    elif side is None or (side == "output" and _calls_children(host)):
        host.register_module(child, nn.Identity().train(block.training))
    else:
        delattr(host, child)


def replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with new modules wherever the old ones are: as children, and in what parents note beside them.

    A parent may keep its units in a list, too, and call them from there.
    """
    by_id = {id(module): replacement for module, replacement in new.items()}
    for parent in list(model.modules()) if new else []:
        for held in [vars(parent), *vars(parent).values()]:
            if isinstance(held, (dict, list)) and held:  # most of them are empty dictionaries of hooks
                entries = held.items() if isinstance(held, dict) else enumerate(held)
                for key in [key for key, value in entries if id(value) in by_id]:
                    held[key] = by_id[id(held[key])]
    return new.get(model, model)


def carry_hooks(old: nn.Module, new: nn.Module) -> nn.Module:
    """The new module with the old one's hooks, and the blocks that hang on them."""
    for name, hooks in vars(old).items():
        if name.startswith(("_forward_", "_backward_")) and name in vars(new):  # the hooks, and which take what
            vars(new)[name].update(hooks)
    vars(new)["_is_full_backward_hook"] = vars(old)["_is_full_backward_hook"]
    for name, child in old.named_children():
        if getattr(child, "gcnet_side", "slot") != "slot":
            new.add_module(name, child)
    return new


def has_hooks(module: nn.Module, *, own: bool = True) -> bool:
    """Whether anything is called around the module: hooks of a user's, or, if `own`, the one that calls a block."""
    return any(own or number != _HOOK_ID for kind in HOOKS for number in getattr(module, kind))


def parameter_holders(model: nn.Module) -> dict[int, list[str]]:
    """For the id of each parameter the names of the modules that hold it; several where it is tied."""
    holders: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for _, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            holders[id(parameter)].append(name)
    return holders


def is_called(host: nn.Module, side: str) -> bool:
    """Whether a host still passes its output, or its input, through the block it carries."""
    return side == "slot" or (side == "output" and _calls_children(host)) or _HOOK_ID in _hooks(host, side)


def _calls_children(host: nn.Module) -> bool:
    """Whether the block is called as the last child of a Sequential: the hook then only looks after the output."""
    return type(host).forward is nn.Sequential.forward


def _hooks(host: nn.Module, side: str) -> dict[int, Any]:
    return vars(host)["_forward_hooks" if side == "output" else "_forward_pre_hooks"]


def through(block: nn.Module, x: Tensor) -> Tensor:
    """The block's output, into which others may write."""
    return _writable(block, block(x))


def _writable(block: nn.Module, output: Tensor) -> Tensor:
    """A full backward hook makes a view of the output, and autograd lets nobody write into it: then a copy."""
    return output.clone() if any(getattr(block, kind) for kind in _BACKWARD_HOOKS) else output


def pass_output_through(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook: the module's output goes through the block it carries."""
    block = module.get_submodule(AFTER)
    return _writable(block, output) if _calls_children(module) else through(block, output)


def pass_input_through(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook: the module's first argument goes through the block it carries."""
    return (through(module.get_submodule(BEFORE), args[0]), *args[1:])
