"""What can be written, and the packages of the extra `report` that this takes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gcnet.errors import GcnetError

_NEEDED = {".html": "jinja2", ".png": "matplotlib", ".pdf": "matplotlib"}


def require_report(names: Sequence[str] = ("matplotlib", "jinja2")) -> None:
    """Fail at once, before hours of work, where packages that draw a report are absent."""
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        message = f'{" and ".join(absent)} must be installed for the report: pip install "gcnet[report]"'
        raise ModuleNotFoundError(message, name=absent[0])


def check_target(path: Path) -> str:
    """The suffix of a file that an analysis can be written to, after making sure that its package is there."""
    suffix = path.suffix.lower()
    if suffix not in _NEEDED:
        raise GcnetError(f"path={str(path)!r} ends in {suffix!r}; use .html for the report, .png or .pdf for a figure")
    require_report([_NEEDED[suffix]])
    return suffix
