"""Latency of exported ResNet-50s in onnxruntime: without blocks, with GC blocks, with GC blocks folded.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_latency.py                        # one file for any batch and size
    OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_latency.py --only 'one size*'     # a file for each size

Every file is compared with PyTorch (<= 1e-4 relative) before it is timed. onnxruntime merges the norms of all models
itself, so "not folded" means here: the context blocks are. "any size" files take every batch and size of input,
"one size" files take one input of that size. Random weights, float32, two threads, CPU provider; the files of a row
take turns in one process.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import onnxruntime
import torch
from torch import nn
from torchvision.models import resnet

import gcnet
from gcnet.exporters.check import check_onnx
from gcnet.exporters.onnx import export_onnx
from gcnet.surgery.timing import time_in_rounds
from measure import rounded
from peers import awaken, with_ours
from rows import INTERVALS, Row, as_table, milliseconds, ms_cell, options, percent_cell, start, take, time_over

BASE = "none"
# Kind of file, input, seconds of timing.
CASES: tuple[tuple[str, tuple[int, ...], float], ...] = (
    ("any size", (1, 3, 224, 224), 8),
    ("any size", (8, 3, 224, 224), 15),
    ("any size", (1, 3, 800, 1088), 25),
    ("one size", (1, 3, 224, 224), 8),
    ("one size", (1, 3, 800, 1088), 25),
)


def networks(build: Callable[[], resnet.ResNet]) -> dict[str, nn.Module]:
    """The model without blocks, with them, with them and folded; the first two as insert leaves them."""
    torch.manual_seed(0)
    plain = awaken(build()).eval()
    ours = with_ours(plain, "gc").eval()
    return {BASE: plain, "gc, not folded": ours, "gc, folded": gcnet.fold(ours)}


def files(models: dict[str, nn.Module], size: tuple[int, ...], *, dynamic: bool) -> tuple[dict[str, bytes], float]:
    """The ONNX file of every model, and the largest difference from PyTorch."""
    contents, worst = {}, 0.0
    for name, model in models.items():
        contents[name] = export_onnx(model, input_size=size, dynamic=dynamic)
        agreement = check_onnx(contents[name], model, input_size=size, dynamic=dynamic)
        worst = max(worst, *agreement.errors.values())
    return contents, worst


def measure(contents: dict[str, bytes], x: torch.Tensor, *, worst: float, rounds: int, seconds: float) -> Row:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = {
        name: onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        for name, content in contents.items()
    }
    feed = {"input": x.numpy()}
    taken = time_in_rounds({name: partial(s.run, None, feed) for name, s in sessions.items()}, rounds, seconds)
    return {
        "onnxruntime": onnxruntime.__version__,
        "difference": worst,
        "megabytes": {name: round(len(content) / 1e6, 1) for name, content in contents.items()},
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "over": {name: rounded(time_over(taken, name, BASE)) for name in taken},
    }


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for name, ms in row["ms"].items():
            tax = "" if name == BASE else percent_cell(row["over"][name])
            lines.append(f"{row['case']} | {name} | {ms_cell(ms)} | {tax} | {row['megabytes'][name]} | {ms['n']}")
    worst = max(row["difference"] for row in rows)
    runtime = rows[0]["onnxruntime"]
    return (
        f"{as_table('file, input | blocks | ms | over none, % | MB | rounds', lines)}\n\n{INTERVALS} "
        f"onnxruntime {runtime}; largest relative difference of a file from PyTorch: {worst:.0e}."
    )


def main() -> None:
    arguments = start(options(__doc__, only="any size*"))
    effort = arguments.effort
    models = lru_cache(maxsize=1)(partial(networks, partial(resnet.ResNet, resnet.Bottleneck, [3, 4, 6, 3])))

    @lru_cache(maxsize=1)
    def written(size: tuple[int, ...], dynamic: bool) -> tuple[dict[str, bytes], float]:
        return files(models(), size, dynamic=dynamic)

    def case(kind: str, shape: tuple[int, ...], seconds: float) -> Row:
        dynamic = kind == "any size"
        contents, worst = written((3, 224, 224) if dynamic else shape[1:], dynamic)
        x = torch.randn(shape)
        return measure(contents, x, worst=worst, rounds=round(40 * effort), seconds=seconds * effort)

    cases = {f"{kind} {'x'.join(map(str, shape))}": partial(case, kind, shape, s) for kind, shape, s in CASES}
    about = "ResNet-50 with GC blocks (r = 16, c3 to c5) as ONNX files in onnxruntime, float32, CPU"
    take("onnx_latency", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
