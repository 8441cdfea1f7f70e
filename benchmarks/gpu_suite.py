"""Everything about the GPU in one call, under eight minutes on an H200: parity of the kernels first, then the tables.

    python benchmarks/gpu_suite.py

1. parity: float32, bfloat16, float16, both memory formats, odd sizes, against float64; nothing is timed if it fails.
2. attention pooling: achieved bandwidth against a plain copy of the map, forward and backward, and a sweep of tiles.
3. the epilogue (`fuse`), likewise; the context path of a folded block (`pooled_transform`) at batch 1.
4. context tax of folded ResNet-50, ResNet-101 and Mask R-CNN's backbone, batch 1 and 16: eager, as CUDA graphs,
   compiled; mmcv's and timm's blocks in a model whose norms PyTorch merged, where these packages are installed.

Kernels are timed as graph replays with CUDA events, the L2 cache flushed before each; models by the host's clock
between synchronisations. All sides take turns in random order. Each section is guarded: a failure goes into the results
and the others run. Results: benchmarks/results/gpu_suite.{json,md}. Where gcnet is not installed, set PYTHONPATH=src.
Without a GPU the parity part runs in Triton's interpreter, and nothing is written.
"""

# ruff: noqa: E402
import os
from pathlib import Path

GPU = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported

import argparse
import copy
import importlib.metadata
import itertools
import random
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from gcnet.analysis.intervals import median_interval
from gcnet.ops.attention_pooling import attention_pool_reference
from gcnet.ops.attention_pooling import kernels as attention
from gcnet.ops.attention_pooling.fused import attention_pool_fused
from gcnet.ops.context_vectors import Branch, pooled_transform_reference
from gcnet.ops.context_vectors import triton as path
from gcnet.ops.context_vectors.reference import transform
from gcnet.ops.fusion import _fuse_plain, fuse_reference
from gcnet.ops.fusion import kernels as epilogue
from measure import environment, rounded, write

DEVICE = "cuda" if GPU else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Row = dict[str, Any]


class Clock:
    """The time budget of the whole script."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


# --- parity ----------------------------------------------------------------------------------------------------------


def as_map(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    x = torch.randn(shape, device=DEVICE).add_(0.3).to(dtype)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x


def label(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> str:
    return f"{'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')} {'channels_last' if last else 'NCHW'}"


def error(a: Tensor, exact: Tensor) -> float:
    a, exact = a.detach().double(), exact.detach().double()
    return float((a - exact).norm() / exact.norm().clamp_min(1e-30))


def both_ways(run: Callable[..., Tensor], tensors: list[Tensor], cotangent: Tensor | None) -> list[Tensor]:
    """The output, and the gradients of all tensors if there is a cotangent."""
    leaves = [t.detach().requires_grad_(cotangent is not None) for t in tensors]
    out = run(*leaves)
    return [out] if cotangent is None else [out, *torch.autograd.grad(out, leaves, cotangent.to(out.dtype))]


def compare(case: str, fast: Callable, plain: Callable, tensors: list[Tensor], grad: bool = True) -> Row:
    """err(fast) <= 2 err(reference in the same dtype) + eps for the output and every gradient, against float64."""
    dtype = tensors[0].dtype
    with torch.no_grad():
        cotangent = torch.randn_like(plain(*tensors)).double() if grad else None
    exact = both_ways(plain, [t.double() for t in tensors], cotangent)
    reference = both_ways(plain, tensors, cotangent)
    ours = both_ways(fast, tensors, cotangent)
    floor = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    pairs = [(error(a, c), error(b, c)) for a, b, c in zip(ours, reference, exact, strict=True)]
    passed = all(a <= 2 * b + floor for a, b in pairs)  # False for NaN
    return {"case": case, "worst": max(pairs), "passed": passed}


def parity(clock: Clock) -> tuple[list[Row], str]:
    shapes = [(2, 24, 7, 9), (1, 1, 13), (2, 70, 3, 5, 7)]
    if GPU:
        shapes = [(2, 1024, 50, 84), (3, 257, 31, 17), (2, 2048, 25, 42), (2, 64, 5, 9, 11)]
    rows = []
    torch.use_deterministic_algorithms(
        True, warn_only=True
    )  # torch.empty is then filled with NaN: what is not written shows
    for shape, dtype, last in itertools.product(shapes, DTYPES, (False, True)):
        name = label(shape, dtype, last)
        x, C = as_map(shape, dtype, last), shape[1]
        weight = (torch.randn(C, device=DEVICE) / C**0.5 * 2).to(dtype)
        rows.append(
            compare(f"attention_pool {name}", attention.attention_pool_kernels, attention_pool_reference, [x, weight])
        )
        vectors = [torch.randn(shape[:2], device=DEVICE).to(dtype) for _ in range(2)]

        def fast(x: Tensor, residual: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return epilogue.fuse_op(x, scale, shift, residual, True)

        def plain(x: Tensor, residual: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return fuse_reference(x, scale=scale, shift=shift, residual=residual, relu=True)

        # x and the sum must not disagree about which side of 0 they are on: keep the ReLU's input away from it
        residual = torch.where(torch.rand(shape, device=DEVICE) < 0.5, -30.0, 30.0).to(dtype)
        rows.append(compare(f"fuse {name}", fast, plain, [x, residual, *vectors]))
        H = max(C // 4, 3)
        sizes = ((C,), (H, C), (H,), (H,), (H,), (2 * C, H), (2 * C,))
        weights = [(torch.randn(size, device=DEVICE) / size[-1] ** 0.5).to(dtype) for size in sizes]

        def whole(h: Tensor, key: Tensor, *weights: Tensor) -> Tensor:
            return path.pooled_transform_op(h, key, *weights, 1e-5, "relu")

        rows.append(compare(f"pooled_transform {name}", whole, pooled_transform_reference, [x, *weights], grad=False))
    torch.use_deterministic_algorithms(False)
    failed = [row for row in rows if not row["passed"]]
    lines = [f"- FAILED {row['case']}: {row['worst'][0]:.1e}, reference {row['worst'][1]:.1e}" for row in failed]
    return rows, "\n".join([f"{len(rows) - len(failed)} of {len(rows)} cases passed.", *lines])


# --- timing ----------------------------------------------------------------------------------------------------------


def as_graph(run: Callable[[], Any]) -> Callable[[], None]:
    """A CUDA graph of one call, warmed up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def kernel_seconds(runs: Mapping[str, Callable[[], Any]], rounds: int = 40) -> dict[str, list[float]]:
    """Graph replays between CUDA events, the L2 cache flushed before each, in random order."""
    graphs = {name: as_graph(run) for name, run in runs.items()}
    flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in graphs}
    for _ in range(rounds + 3):
        for name in random.sample(list(graphs), len(graphs)):
            flush.zero_()  # also keeps the GPU busy while the host launches what is timed
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graphs[name]()
            end.record()
            marks[name].append((start, end))
        torch.cuda.synchronize()
    return {name: [a.elapsed_time(b) / 1e3 for a, b in pairs[3:]] for name, pairs in marks.items()}


def model_seconds(runs: Mapping[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """By the host's clock between synchronisations, in random order."""
    for run in runs.values():
        for _ in range(3):
            run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    while len(next(iter(taken.values()))) < rounds and (time.monotonic() < end or len(next(iter(taken.values()))) < 6):
        for name in random.sample(list(runs), len(runs)):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            runs[name]()
            torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - begun)
    return taken


def bandwidth_rows(case: str, runs: Mapping[str, tuple[int, Callable[[], Any]]], size: int) -> list[Row]:
    """runs: name -> (how often it must move the map, the call); the entry "copy" is the yardstick."""
    taken = kernel_seconds({name: run for name, (_, run) in runs.items()})
    passes = {name: count for name, (count, _) in runs.items()}
    rows = []
    for name, values in taken.items():
        share = [(passes[name] / a) / (passes["copy"] / b) for a, b in zip(values, taken["copy"], strict=True)]
        rows.append(
            {
                "case": case,
                "what": name,
                "us": rounded(median_interval([v * 1e6 for v in values])),
                "GB/s": round(passes[name] * size / median_interval(values).value / 1e9),
                "of_copy": rounded(median_interval(share)),
            }
        )
    return rows


def bandwidth_table(rows: list[Row]) -> str:
    lines = ["| map | what | us | GB/s | of a copy's bandwidth (95 %) |", "|---|---|---|---|---|"]
    for row in rows:
        us, of = row["us"], row["of_copy"]
        time_cell = f"{us['median']:.1f} ({us['low']:.1f}-{us['high']:.1f})"
        lines.append(
            f"| {row['case']} | {row['what']} | {time_cell} | {row['GB/s']} | "
            f"{of['median']:.0%} ({of['low']:.0%}-{of['high']:.0%}) |"
        )
    return "\n".join(lines)


MAPS = ((32, 1024, 50, 84), (32, 512, 100, 168), (32, 2048, 25, 42), (1, 1024, 50, 84))


def each_map(clock: Clock, dtype: torch.dtype = torch.bfloat16):
    for shape, last in itertools.product(MAPS, (False, True)):
        if clock.left() < 0:
            return
        x = as_map(shape, dtype, last)
        yield label(shape, dtype, last), x


# block_p, warps, stages, per_processor
TILES = (
    (8, 4, 3, 4),
    (8, 8, 3, 4),
    (16, 8, 2, 3),
    (16, 8, 3, 2),
    (16, 8, 4, 2),
    (32, 8, 2, 2),
    (32, 16, 3, 1),
    (64, 16, 2, 1),
)


def attention_bandwidth(clock: Clock) -> tuple[list[Row], str]:
    rows = []
    for name, x in each_map(clock):
        B, C = x.shape[:2]
        weight = (torch.randn(C, device=DEVICE) / C**0.5).to(x.dtype)
        grad, target, residual = (
            torch.randn(B, C, device=DEVICE, dtype=x.dtype),
            torch.empty_like(x),
            torch.randn_like(x),
        )
        _, wide, logsumexp = attention.attention_pool_op(x, weight)
        backward = partial(attention.attention_pool_backward_op, x, weight, logsumexp, wide, grad)
        runs = {
            "copy": (2, partial(target.copy_, x)),
            "forward": (1, partial(attention.attention_pool_op, x, weight)),
            "forward, PyTorch path": (1, partial(attention_pool_fused, x, weight)),
            "backward": (2, partial(backward, None)),
            "backward with the residual's gradient": (3, partial(backward, residual)),
        }
        rows += bandwidth_rows(name, runs, x.numel() * x.element_size())
    return rows, bandwidth_table(rows)


def pool_with(tile: attention.Tile, x: Tensor, weight: Tensor) -> Any:
    with mock.patch.object(attention, "forward_tile", return_value=tile):
        return attention.attention_pool_op(x, weight)


def tile_sweep(clock: Clock) -> tuple[list[Row], str]:
    """Other tiles than the table's, at the size of the goal: what the next version of `forward_tile` should say."""
    rows = []
    for last in (False, True):
        x = as_map(MAPS[0], torch.bfloat16, last)
        weight = (torch.randn(x.shape[1], device=DEVICE) / 32).to(x.dtype)
        target = torch.empty_like(x)
        runs: dict[str, tuple[int, Callable[[], Any]]] = {"copy": (2, partial(target.copy_, x))}
        tiles = [attention.forward_tile(x.shape[1], 2, last), *(attention.Tile(*tile) for tile in TILES)]
        for tile in dict.fromkeys(tiles):
            if clock.left() < 0:
                break
            run = partial(pool_with, tile, x, weight)
            try:
                run()
                runs[", ".join(f"{k} {v}" for k, v in tile._asdict().items())] = (1, run)
            except Exception as problem:  # too much shared memory, for one
                rows.append({"case": "tile", "what": str(tile), "error": repr(problem)[:200]})
        rows += bandwidth_rows("channels_last" if last else "NCHW", runs, x.numel() * x.element_size())
    failed = "\n".join(f"- {row['what']}: {row['error']}" for row in rows if "error" in row)
    return rows, f"{bandwidth_table([row for row in rows if 'us' in row])}\n\n{failed}"


def fuse_bandwidth(clock: Clock) -> tuple[list[Row], str]:
    rows = []
    for name, x in each_map(clock):
        shift = torch.randn(x.shape[:2], device=DEVICE, dtype=x.dtype)
        residual, target = torch.randn_like(x), torch.empty_like(x)
        out = epilogue.fuse_op(x, shift, shift, residual, True)
        runs = {
            "copy": (2, partial(target.copy_, x)),
            "x * scale": (2, partial(epilogue.fuse_op, x, shift, None, None, False)),
            "relu(x + shift + residual)": (3, partial(epilogue.fuse_op, x, None, shift, residual, True)),
            "the same, PyTorch path": (3, partial(_fuse_plain, x, None, shift, residual, True)),
            "backward of relu(x * scale + shift + residual)": (
                5,
                partial(epilogue.fuse_backward_op, residual, x, shift, out, True, True),
            ),
        }
        rows += bandwidth_rows(name, runs, x.numel() * x.element_size())
    return rows, bandwidth_table(rows)


def composed(h: Tensor, weights: list[Tensor]) -> Tensor:
    """What `pooled_transform` does without its kernels."""
    key, *others = weights
    return transform(attention_pool_fused(h, key).float(), Branch(tuple(others), 1e-5, "relu")).to(h.dtype)


def context_path(clock: Clock) -> tuple[list[Row], str]:
    rows = []
    lines = ["| narrow map -> C | how | us, kernels | us, PyTorch | times faster (95 %) |", "|---|---|---|---|---|"]
    for (K, C, height, width), last in itertools.product(
        ((128, 512, 100, 168), (256, 1024, 50, 84), (512, 2048, 25, 42), (512, 2048, 7, 7)), (False, True)
    ):
        if clock.left() < 0:
            break
        H, dtype = C // 16, torch.bfloat16
        h = as_map((1, K, height, width), dtype, last)
        sizes = ((K,), (H, K), (H,), (H,), (H,), (C, H), (C,))
        weights = [(torch.randn(size, device=DEVICE) / size[-1] ** 0.5).to(dtype) for size in sizes]
        runs = {
            "kernels": partial(path.pooled_transform_op, h, *weights, 1e-5, "relu"),
            "PyTorch": partial(composed, h, weights),
        }
        case = f"1x{K}x{height}x{width} {'channels_last' if last else 'NCHW'} -> {C}"
        for how, taken in (("eager", model_seconds(runs, 200, 2)), ("graph", kernel_seconds(runs))):
            faster = rounded(median_interval([b / a for a, b in zip(taken["kernels"], taken["PyTorch"], strict=True)]))
            us = {name: rounded(median_interval([v * 1e6 for v in values])) for name, values in taken.items()}
            rows.append({"case": case, "how": how, "us": us, "faster": faster})
            lines.append(
                f"| {case} | {how} | {us['kernels']['median']:.1f} | {us['PyTorch']['median']:.1f} | "
                f"{faster['median']:.2f} ({faster['low']:.2f}-{faster['high']:.2f}) |"
            )
    return rows, "\n".join(lines)


# --- context tax -----------------------------------------------------------------------------------------------------


BASES = ("none, gcnet.fold", "none, norms merged by PyTorch")


def networks(layers: list[int], pyramid: bool) -> tuple[dict[str, nn.Module], str]:
    """Name -> model on the CPU in float32, outputs compared; and a note about peers that are not installed."""
    from torchvision.models import resnet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

    import gcnet
    from peers import awaken, difference, fold_batch_norms, with_ours, with_peers

    torch.manual_seed(0)

    def whole(model: nn.Module) -> nn.Module:
        if not pyramid:
            return model.eval()
        torch.manual_seed(1)
        return _resnet_fpn_extractor(model, trainable_layers=5).eval()  # type: ignore[arg-type]

    plain = awaken(resnet.ResNet(resnet.Bottleneck, layers)).eval()
    independent = fold_batch_norms(plain)
    ours = with_ours(plain, "gc")
    models = {
        "none, gcnet.fold": gcnet.fold(whole(copy.deepcopy(plain)), torch.randn(1, 3, 64, 64)),
        "none, norms merged by PyTorch": whole(copy.deepcopy(independent)),
        "gc of ours, gcnet.fold": gcnet.fold(whole(copy.deepcopy(ours)), torch.randn(1, 3, 64, 64)),
    }
    missing = []
    for peer in ("mmcv", "timm"):
        try:
            models[f"gc of {peer}, norms merged by PyTorch"] = whole(with_peers(independent, ours, peer))
        except ImportError as problem:
            missing.append(f"{peer} is left out: {problem}")
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        outs = {name: last_map(model(x)) for name, model in models.items()}
    for name, out in outs.items():
        like = outs["gc of ours, gcnet.fold" if name.startswith("gc") else "none, gcnet.fold"]
        if not difference(out, like) <= 1e-4:
            raise AssertionError(f"{name} gives other outputs: relative difference {difference(out, like):.1e}")
    return models, "; ".join(missing)


def last_map(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else next(iter(out.values()))


def context_tax(
    clock: Clock,
    *,
    title: str,
    layers: list[int],
    pyramid: bool,
    size: tuple[int, int],
    hows: tuple[str, ...] = ("eager", "graph"),
) -> tuple[list[Row], str]:
    rows: list[Row] = []
    torch._dynamo.config.recompile_limit = 64  # every model here runs the same forward
    lines = [
        "| batch, how | blocks | ms | tax over gcnet.fold of the plain one (95 %) | over the independent one |",
        "|---|---|---|---|---|",
    ]
    models, note = networks(layers, pyramid)
    models = {
        name: model.to(DEVICE, torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name, model in models.items()
    }
    for how, batch in itertools.product(hows, (1, 16)):
        if clock.left() < (60 if how == "compiled" else 5):
            note += f"; {how} at batch {batch} and what follows was left out: no time"
            break
        x = torch.randn(batch, 3, *size, device=DEVICE, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        runs: dict[str, Callable[[], Any]] = {}
        with torch.inference_mode():
            for name, model in models.items():
                if how == "compiled" and clock.left() < 30 and runs:
                    note += f"; {name} was not compiled at batch {batch}: no time"
                elif how == "compiled":
                    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True, dynamic=False)
                    runs[name] = partial(compiled, x)
                    runs[name]()
                else:
                    runs[name] = partial(model, x) if how == "eager" else as_graph(partial(model, x))
            taken = model_seconds(runs, 60, 6)
        for name, values in taken.items():
            over = {
                other: rounded(median_interval([a / b for a, b in zip(values, taken[other], strict=True)]))
                for other in BASES
                if other in taken
            }
            ms = rounded(median_interval([v * 1e3 for v in values]))
            rows.append({"network": title, "batch": batch, "how": how, "blocks": name, "ms": ms, "over": over})
            taxes = [f"{v['median'] - 1:+.1%} ({v['low'] - 1:+.1%} to {v['high'] - 1:+.1%})" for v in over.values()]
            lines.append(f"| {batch}, {how} | {name} | {ms['median']:.3f} | {' | '.join(taxes)} |")
        del runs
        torch.cuda.empty_cache()
    return rows, "\n".join(lines) + (f"\n\n{note.removeprefix('; ')}" if note else "")


# --- the whole -------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Clock], tuple[list[Row], str]]] = {
    "Attention pooling: bandwidth (goal: forward at 85 % of a copy's at 32x1024x50x84)": attention_bandwidth,
    "Epilogue: bandwidth": fuse_bandwidth,
    "Context path of a folded block at batch 1": context_path,
    "Context tax: ResNet-50, 224 x 224, bfloat16, channels_last": partial(
        context_tax, title="resnet50", layers=[3, 4, 6, 3], pyramid=False, size=(224, 224)
    ),
    "Context tax: ResNet-101, 224 x 224, bfloat16, channels_last": partial(
        context_tax, title="resnet101", layers=[3, 4, 23, 3], pyramid=False, size=(224, 224)
    ),
    "Context tax: ResNet-50 with FPN (Mask R-CNN's backbone), 800 x 1344, bfloat16, channels_last": partial(
        context_tax, title="resnet50_fpn", layers=[3, 4, 6, 3], pyramid=True, size=(800, 1344)
    ),
    "Attention pooling: other tiles at 32x1024x50x84": tile_sweep,
    "Context tax: ResNet-50 as above, compiled with mode=reduce-overhead": partial(
        context_tax, title="resnet50", layers=[3, 4, 6, 3], pyramid=False, size=(224, 224), hows=("compiled",)
    ),
}


def versions() -> str:
    found = []
    for package in ("torch", "torchvision", "triton", "timm", "mmcv-lite"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.5, help="what is not begun by then is left out")
    clock = Clock(parser.parse_args().minutes * 60)
    torch.manual_seed(0)
    random.seed(0)
    if GPU:
        print(environment()["gpu"], versions(), flush=True)
    else:
        print(
            "No GPU here: parity only, small maps, in Triton's interpreter; nothing is written.", versions(), flush=True
        )
    checked, text = parity(clock)
    print(text, flush=True)
    passed = all(row["passed"] for row in checked)
    if not GPU:
        return 0 if passed else 1
    properties = torch.cuda.get_device_properties(0)
    parts = [
        f"{versions()}; {properties.multi_processor_count} processors, CUDA {torch.version.cuda}",
        f"## Parity\n\n{text}",
    ]
    results: list[Row] = [{"section": "parity", "rows": checked}]
    for title, section in SECTIONS.items() if passed else ():
        begun = time.monotonic()
        if clock.left() < 10:
            parts.append(f"## {title}\n\nLeft out: no time.")
            continue
        try:
            rows, table = section(clock)
        except Exception as problem:
            rows, table = [{"error": repr(problem)}], f"Failed:\n\n```\n{traceback.format_exc()[-1500:]}\n```"
            torch.cuda.empty_cache()
        results.append({"section": title, "seconds": round(time.monotonic() - begun, 1), "rows": rows})
        parts.append(f"## {title}\n\n{table}")
        write("gpu_suite", results, "The kernels and the context tax on a GPU", "\n\n".join(parts))
    if not passed:
        write("gpu_suite", results, "The kernels on a GPU: parity FAILED, nothing was timed", "\n\n".join(parts))
    return 0 if passed and not any("error" in row for result in results for row in result["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
