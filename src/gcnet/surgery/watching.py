"""Looking at the calls of a model's modules while it runs; nothing is left behind.

The hooks stand under ids that PyTorch never hands out (as those of `places`): its own count up from 0 in every process,
so the next one could overwrite, and later remove, a hook that came with an unpickled model.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any

from torch import nn

Enter = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], None]
See = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any], Any], None]

_IDS = count(1 << 49)


@contextmanager
def watching(
    modules: Mapping[str, nn.Module], see: See, *, enter: Enter | None = None, outermost: bool = False
) -> Iterator[None]:
    """Inside, `see(name, module, args, kwargs, output)` is called behind each call of the modules, in any mode.

    Args:
        modules: by the names that `see` is told.
        see: looks, and changes nothing: what it returns is not used.
        enter: `enter(name, module, args, kwargs)` is called before each call. If it is given, `see` follows also where
            the call raised, with None as output.
        outermost: whether `enter` comes before the module's own pre-hooks, so that what these do is inside; else it is
            told what they made of the arguments.
    """
    with ExitStack() as stack:
        for name, module in modules.items():
            number = next(_IDS)
            stack.callback(_forget, module, number)
            if enter is not None:
                module._forward_pre_hooks[number] = partial(_before, enter, name)
                module._forward_pre_hooks_with_kwargs[number] = True
                module._forward_pre_hooks.move_to_end(number, last=not outermost)
                module._forward_hooks_always_called[number] = True
            module._forward_hooks[number] = partial(_behind, see, name)
            module._forward_hooks_with_kwargs[number] = True
        yield


def _before(enter: Enter, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    enter(name, module, args, kwargs)


def _behind(see: See, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
    see(name, module, args, kwargs, output)


def _forget(module: nn.Module, number: int) -> None:
    for hooks in (module._forward_hooks, module._forward_hooks_with_kwargs, module._forward_hooks_always_called):
        hooks.pop(number, None)
    for hooks in (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs):
        hooks.pop(number, None)
