"""Looking at the calls of a model's modules while it runs; nothing is left behind.

The hooks stand under ids that PyTorch never hands out (as those of `places`): its own count up from 0 in every process,
so the next one could overwrite, and later remove, a hook that came with an unpickled model.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

Enter = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], object]
See = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any], Any], object]

_next_id = 1 << 49


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
        with _own_ids():
            for name, module in modules.items():
                if enter is not None:
                    before = partial(_before, enter, name)
                    handle = module.register_forward_pre_hook(before, prepend=outermost, with_kwargs=True)
                    stack.callback(handle.remove)
                behind = partial(_behind, see, name)
                handle = module.register_forward_hook(behind, with_kwargs=True, always_call=enter is not None)
                stack.callback(handle.remove)
        yield


@contextmanager
def _own_ids() -> Iterator[None]:
    """Inside, hooks get ids from far above."""
    global _next_id
    theirs, RemovableHandle.next_id = RemovableHandle.next_id, _next_id
    try:
        yield
    finally:
        _next_id, RemovableHandle.next_id = RemovableHandle.next_id, theirs


def _before(enter: Enter, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    enter(name, module, args, kwargs)


def _behind(see: See, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
    see(name, module, args, kwargs, output)
