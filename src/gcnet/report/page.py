"""Pages: one HTML file each with everything in it, pictures for light and dark screens; nothing is fetched.

Here too is what can be written at all, and the packages of the extra `report` that this takes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gcnet.errors import GcnetError
from gcnet.files.atomic import write_text

_NEEDED = {".html": "jinja2", ".png": "matplotlib", ".pdf": "matplotlib"}


@dataclass(frozen=True)
class Figure:
    """A picture as PNG, once for light and once for dark screens, with what a blind reader is told."""

    caption: str
    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Panel:
    """A small picture that looks the same on every screen, with a name and a remark under it."""

    name: str
    remark: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """Rows of panels."""

    caption: str
    rows: Sequence[Sequence[Panel]]


@dataclass(frozen=True)
class Table:
    """Texts only; `shade` gives rows a muted look (the yardstick)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    shade: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A heading, what it is about, findings, a table, remarks, pictures, and a table folded away."""

    title: str
    lead: str = ""
    sentences: Sequence[str] = ()
    table: Table | None = None
    gallery: Gallery | None = None
    figures: Sequence[Figure] = ()
    details: Table | None = None
    details_title: str = ""
    notes: Sequence[str] = ()


def write_page(
    path: Path, *, title: str, lead: str, sections: Sequence[Section], facts: Sequence[tuple[str, str]]
) -> None:
    """Write the page; every text is escaped, whatever names of files and classes hold.

    `facts` are pairs of name and value for the end of the page: hardware, versions, settings.
    """
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_text(path, render("sections.html", title=title, lead=lead, sections=sections, facts=facts, date=now))


def render(template: str, **values: Any) -> str:
    """A page as HTML, from one of the templates in `templates/`; every text among the values is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gcnet.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = data_url
    return environment.get_template(template).render(**values)


def data_url(content: bytes, kind: str = "png") -> str:
    """A picture as an address that holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


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
