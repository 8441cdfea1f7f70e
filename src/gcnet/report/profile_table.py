"""A profile as text: the totals, the parts of the model, the inserted blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gcnet.analysis.intervals import Median

if TYPE_CHECKING:
    from gcnet.report.profile import Profile


def tables(profile: Profile) -> Group:
    """What `print(profile)` shows, for rich."""
    size = "x".join(str(n) for n in profile.input_size)
    boxes = "" if profile.boxes is None else f"{profile.boxes} boxes per image, "
    title = Text(f"{profile.model}, {size}, {boxes}{profile.dtype}, {profile.device}")
    parts: list[Text | Table] = [title, _totals(profile)]
    if profile.latency is not None:
        parts.append(Text(f"latency: median of {profile.latency.count} rounds and its 95 % interval"))
    without = {} if profile.without is None else {part.name: part for part in profile.without.stages}
    extra = ["of it blocks", ""] if without else []
    rows = []
    for part in profile.stages:
        row = [part.name, _millions(part.params), _millions(part.macs), f"{part.share:.1%}"]
        if without:
            plain = without.get(part.name)
            row += [
                _millions(part.params - (plain.params if plain else 0)),
                _millions(part.macs - (plain.macs if plain else 0)),
            ]
        rows.append(row)
    parts += [Text(), _table(["part", "params, M", "MACs, M", "share", *extra], rows)]
    if profile.blocks:
        rows = [[block.name, block.kind, _millions(block.params), _millions(block.macs)] for block in profile.blocks]
        parts += [Text(), _table(["block", "kind", "params, M", "MACs, M"], rows)]
    return Group(*parts)


def _totals(profile: Profile) -> Table:
    columns = ["", "params, M", "MACs, M", "peak memory, MB", "latency, ms"]
    if profile.without is None:
        return _table(columns, [["model", *_figures(profile)]])
    plain = profile.without
    memory = (profile.peak_memory - plain.peak_memory) / 2**20
    added = [_millions(profile.params - plain.params), _millions(profile.macs - plain.macs), f"{memory:.1f}"]
    share = [f"{profile.params / max(plain.params, 1) - 1:+.2%}", f"{profile.macs / max(plain.macs, 1) - 1:+.2%}"]
    share += [f"{profile.peak_memory / max(plain.peak_memory, 1) - 1:+.2%}"]
    rows = [["without blocks", *_figures(plain)], ["with blocks", *_figures(profile)]]
    rows += [["added", *added, ""], ["added, %", *share, _tax(profile.ratio)]]
    return _table(columns, rows)


def _figures(profile: Profile) -> list[str]:
    latency = profile.latency
    time = "-" if latency is None else _interval(latency, 1e3, ".1f")
    return [_millions(profile.params), _millions(profile.macs), f"{profile.peak_memory / 2**20:.1f}", time]


def _tax(ratio: Median | None) -> str:
    if ratio is None:
        return "-"
    value, low, high = (bound - 1 for bound in ratio[:3])
    return f"{value:+.1%} ({low:+.1%} to {high:+.1%})"


def _interval(value: Median, factor: float, form: str) -> str:
    median, low, high = (format(bound * factor, form) for bound in value[:3])
    return f"{median} ({low} to {high})"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or column == "kind" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
