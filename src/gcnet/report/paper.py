"""The user's figures beside those of the paper's ablation."""

from __future__ import annotations

from gcnet.analysis.comparison import PLAIN, Comparison, Row
from gcnet.analysis.published import SOURCES, Published, Source
from gcnet.report.page import Section, Table
from gcnet.report.texts import percent, scaled

DASH = "–"
OURS, THEIRS = "yours", "paper: Mask R-CNN R50 on COCO"


def paper_section(comparison: Comparison) -> Section:
    """The table with whose figures these are, that they are of other data, and what the letters at them mean."""
    used = {source for published in comparison.published.values() for source in published.sources}
    marks = "; ".join(f"({mark}) {text}" for mark, text in SOURCES.items() if mark in used)
    return Section(
        title="Beside the paper",
        lead=f"What GCNet's paper (arXiv 1904.11492) has for the axis {comparison.axis}: AP in percent of Mask R-CNN "
        "with ResNet-50 and FPN on COCO, 1x schedule, with what the blocks add to that detector at 1280x800. Another "
        "model on other data: what can be compared is which row gains and what it costs, not the figures themselves.",
        table=paper_table(comparison),
        notes=[f"Sources of the paper's figures: {marks}. {DASH} no figure known."],
    )


def paper_table(comparison: Comparison) -> Table:
    """One row for each of the comparison's, the user's columns beside the paper's."""
    first = comparison.rows[0].label
    metric = comparison.metric.replace("_", " ")
    columns = [
        "variant",
        f"{OURS}: {metric} against {first}",
        f"{THEIRS}, box / mask AP",
        f"{THEIRS}, AP against {first}",
        f"{OURS}: added parameters",
        f"{THEIRS}, added parameters",
        f"{OURS}: added MACs",
        f"{THEIRS}, added MACs",
    ]
    imagenet = (comparison.metric, comparison.axis) == ("accuracy", "block")
    if imagenet:
        columns.insert(4, "paper: ResNet-50 on ImageNet, top-1")
    rows = []
    for row in comparison.rows:
        published = comparison.published.get(row.label, Published())
        cells = [row.label, *_accuracies(row, published, comparison.published.get(first)), *_costs(row, published)]
        if imagenet:
            cells.insert(4, _marked(None if published.top1 is None else f"{published.top1:.1f}", published.top1_source))
        rows.append(cells)
    return Table(columns, rows, shade=(0,))


def _accuracies(row: Row, published: Published, first: Published | None) -> list[str]:
    ours = percent(row.difference, sign="+") if row.difference else ""
    theirs = _marked(_pair(published.box_ap, published.mask_ap), published.ap_source)
    if first is None or published is first:
        return [ours, theirs, ""]
    gained = _pair(_minus(published.box_ap, first.box_ap), _minus(published.mask_ap, first.mask_ap), sign="+")
    return [ours, theirs, gained or DASH]


def _costs(row: Row, published: Published) -> list[str]:
    parameters, gmacs = published.parameters, published.gmacs
    if row.label == PLAIN:  # nothing is added: what the whole model has
        ours = f"{row.cost.parameters:,} in all", f"{scaled(row.cost.macs)} in all"
        theirs = None if parameters is None else f"{scaled(parameters)} in all", f"{gmacs:.1f} G in all"
    else:
        ours = f"{row.added_parameters:+,}", f"+{scaled(row.added_macs)}"
        theirs = (
            None if parameters is None else f"{parameters:+,}",
            None if gmacs is None else f"{gmacs:+.1f} G",
        )
    return [
        ours[0],
        _marked(theirs[0], published.parameters_source),
        ours[1],
        _marked(theirs[1], published.gmacs_source),
    ]


def _pair(box: float | None, mask: float | None, *, sign: str = "") -> str | None:
    if box is None:
        return None
    return f"{box:{sign}.1f} / {DASH if mask is None else format(mask, f'{sign}.1f')}"


def _minus(value: float | None, first: float | None) -> float | None:
    return None if value is None or first is None else value - first


def _marked(text: str | None, source: Source | None) -> str:
    return DASH if text is None else f"{text} ({source})"
