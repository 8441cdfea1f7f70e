"""What cannot go back into training mode: layers of a folded model, and everything that holds one.

PyTorch tells a module of its mode before it tells the children. So a layer refuses by its class, and whatever holds one
refuses before anything inside has changed. What stands around a folded model has its own flag set by then: `eval` mends
it.
"""

from typing import Any

from torch import nn

from gcnet.errors import RewriteError

_REFUSAL = (
    "train(True) on a folded model: its norms and blocks are merged into the convolutions; train the model that went "
    "into fold, then fold again. Call eval() on what holds it, and train(True) on its other parts only"
)


class Merged(nn.Module):
    """A layer that is made of several."""

    def train(self, mode: bool = True) -> Any:
        if mode:
            raise RewriteError(_REFUSAL)
        return super().train(mode)


class StayInEval:
    """Takes the place of the `train` method of a module that holds merged layers."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        if mode:
            raise RewriteError(_REFUSAL)
        return type(self.module).train(self.module, mode)


def keep_in_eval(model: nn.Module) -> None:
    """Let the model, and each part of it that holds a merged layer, refuse training mode."""
    for module in model.modules():
        if isinstance(module, Merged):
            vars(module).pop("train", None)  # of an earlier fold, bound to the module that this one replaced
        elif module is model or any(isinstance(part, Merged) for part in module.modules()):
            vars(module)["train"] = StayInEval(module)
