"""An analysis as a file to look at: the HTML report, and figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.analysis.report.packages import check_target as check_target
from gcnet.analysis.report.packages import require_report as require_report

if TYPE_CHECKING:
    from gcnet.analysis.analyze_result import Analysis


def save(analysis: Analysis, path: Path) -> None:
    """Write the report, or the figure with its defaults, as the suffix says."""
    if check_target(path) == ".html":
        from gcnet.analysis.report.page import page
        from gcnet.checkpoints.atomic import write_text

        write_text(path, page(analysis))
    else:
        analysis.figure(path)
