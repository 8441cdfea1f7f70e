"""One HTML file with everything in it: tables, pictures for light and dark screens, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gcnet.files.atomic import write_text


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

    Args:
        path: the HTML file.
        title: its heading.
        lead: the sentence under it.
        sections: in order.
        facts: pairs of name and value for the end of the page: hardware, versions, settings.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gcnet.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = _data_url
    values: dict[str, Any] = {"title": title, "lead": lead, "sections": sections, "facts": facts}
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    write_text(path, environment.get_template("page.html").render(**values, date=now))


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
