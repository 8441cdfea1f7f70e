"""Files of torch.save, read without running anything that is written in them.

`torch.load(weights_only=True)` calls only what it knows. Trainers also store what they had at hand: buffers of a log,
configs, arguments, numbers of NumPy. Names on the list below are read as objects that hold and do nothing; others are
refused. `getattr` is one of them: files of mmengine ask for it (bound methods of a log), the real one is never used.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from gcnet.errors import CheckpointError, some


class Inert:
    """In the place of an object of another library: takes anything, holds nothing, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_INERT = (
    "__builtin__.getattr",
    "argparse.Namespace",
    "builtins.getattr",
    "mmcv.utils.config.Config",
    "mmengine.config.config.Config",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.bool_",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.float32",
    "numpy.float64",
    "numpy.int32",
    "numpy.int64",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
)
_TABLES = (
    "addict.addict.Dict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
)
STAND_INS: dict[str, type] = {**dict.fromkeys(_INERT, Inert), **dict.fromkeys(_TABLES, OrderedDict)}

# What torch.load raises on files that are cut or scrambled, beside its own UnpicklingError.
_DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    MemoryError, RecursionError, OverflowError,
)  # fmt: skip
_REFUSED = re.compile(r"GLOBAL (\S+)")
_HARMLESS = ("torch.", "torch ", "collections.", "_codecs.encode", "__builtin__.set", "builtins.set")


def unpickle(path: Path) -> Any:
    """What torch.save wrote, tensors on the CPU; objects on the list of stand-ins hold nothing.

    Raises:
        CheckpointError: it names something that is not on the list (nothing was run), or the file is damaged.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(v, k) for k, v in STAND_INS.items()]):
            warnings.simplefilter("ignore")  # torch's: other protocols of pickle, storages of old files
            with path.open("rb") as file:  # a path that ends in .safetensors would be read as such
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = [name for name in globals_in(path) if name not in STAND_INS and not name.startswith(_HARMLESS)]
        named = named or _REFUSED.findall(str(error))[:1]
        if named:
            raise CheckpointError(
                f"{path} holds more than tensors and is not opened: it asks for {some(named, 5)}, which a file of "
                "weights has no use for and which could run code; nothing in it was run. If you trust where it comes "
                "from, open it with the program that wrote it and save its state_dict alone"
            ) from None
        raise _damaged(path, error) from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, 22):  # torch answers a cut zip file with EINVAL
            raise
        raise _damaged(path, error) from None


def globals_in(path: Path) -> list[str]:
    """The names that the pickles in a file ask for, as far as they can be followed without running them."""
    found: dict[str, None] = {}
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".pkl"):
                        _collect(io.BytesIO(archive.read(name)), found)
        else:
            with path.open("rb") as file:
                while file.peek(1):
                    _collect(file, found)
    except Exception:  # whatever pickletools makes of bytes that are no pickle: what was found before stays
        pass
    return list(found)


def _collect(file: Any, found: dict[str, None]) -> None:
    texts: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            found[str(argument).replace(" ", ".")] = None
        elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
            found[".".join(texts[-2:])] = None
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif opcode.name.endswith("BINGET") and argument in memo:
            texts.append(memo[argument])
        elif isinstance(argument, str):
            texts.append(argument)


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()  # before it: advice to trust the file
    first = text.splitlines()[0] if text else "it ends too early"
    return CheckpointError(
        f"{path} is truncated or damaged ({path.stat().st_size:,} bytes; {first}); copy or download it again"
    )
