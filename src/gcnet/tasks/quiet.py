"""Lightning's lines on devices and tips, and its advice on workers, hidden while we use it; errors stay."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = (
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
)
_NOISY = ("lightning", "torch.optim.lr_scheduler", "torch.utils._pytree")


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hush Lightning inside a `with`; everything is as before afterwards."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        with warnings.catch_warnings():
            hush_process()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def hush_process() -> None:
    """Hush Lightning for good, in a process that exists only for a training."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in _NOISY:
        warnings.filterwarnings("ignore", module=rf"{module}.*")
