"""The formats that a model can be exported to, by the suffix of the file."""

from collections.abc import Callable
from typing import NamedTuple

from gcnet.exporters.check import Agreement, check_onnx, check_program
from gcnet.exporters.onnx import export_onnx
from gcnet.exporters.program import export_program


class Exporter(NamedTuple):
    """How a model becomes the content of a file, and how the file is compared with the model."""

    convert: Callable[..., bytes]
    check: Callable[..., Agreement]


EXPORTERS: dict[str, Exporter] = {
    ".onnx": Exporter(export_onnx, check_onnx),
    ".pt2": Exporter(export_program, check_program),
}
