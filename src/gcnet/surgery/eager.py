"""Which models a rewrite takes: eager ones, since a compiled, scripted or wrapped model cannot be changed inside."""

from typing import Any

import torch
from torch import nn

from gcnet.errors import GcnetTypeError


def check_model(model: Any) -> None:
    """Raise unless the model is an eager module through and through.

    Raises:
        TypeError: model is no module, or a part of it is compiled, scripted or wrapped for several devices.
    """
    if not isinstance(model, nn.Module):
        raise GcnetTypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    for name, module in model.named_modules():
        kind = type(module)
        label = f"module {name!r} of the model" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise GcnetTypeError(f"{label} is scripted (TorchScript); give the eager model that it was made from")
        if kind.__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise GcnetTypeError(f"{label} is compiled; give the eager model, then call torch.compile on the result")
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise GcnetTypeError(f"{label} is wrapped in {kind.__name__}; give its .module, then wrap the result")
