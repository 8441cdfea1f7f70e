"""The pictures and the one-file HTML page of a comparison."""

from gcnet.analysis.report import require_report as require_report
from gcnet.recipes.report.page import Figure as Figure
from gcnet.recipes.report.page import Gallery as Gallery
from gcnet.recipes.report.page import Section as Section
from gcnet.recipes.report.page import write_page as write_page

__all__ = ["Figure", "Gallery", "Section", "require_report", "write_page"]
