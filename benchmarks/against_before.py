"""Whether a rebuilt gcnet is slower than an earlier one: both in one process, in the same rounds, cell by cell.

    git worktree add /tmp/before COMMIT
    OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=20000 python benchmarks/against_before.py --before /tmp/before/src/gcnet

The cells are those of context_tax.py (ResNet-50, folded), block_alone.py and training_step.py. The earlier package is
copied under the name `gcnet_before`, its operators with it, so that both can be loaded. Equal outputs are checked
first, in every cell.
"""

import importlib
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet

import block_alone
import context_tax
import gcnet
import training_step
from gcnet.surgery.timing import time_in_rounds
from lockstep import inference_in_step, training_in_step
from measure import rounded
from peers import awaken, difference, freeze_batch_norms
from rows import FORMATS, INTERVALS, Row, as_table, milliseconds, ms_cell, options, start, take, time_over, times_cell

TOLERANCE = 1e-4


def load_before(package: Path, folder: Path) -> Any:
    """The earlier package under another name."""
    for path in package.rglob("*.py"):
        copy = folder / "gcnet_before" / path.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"\bgcnet\b", "gcnet_before", path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.path.insert(0, str(folder))
    return importlib.import_module("gcnet_before")


def filled(build: Callable[[Any], nn.Module], before: Any) -> dict[str, nn.Module]:
    """The same model by both packages, with the same numbers."""
    now, then = awaken(build(gcnet)), build(before)
    then.load_state_dict(now.state_dict())
    return {"before": then, "now": now}


def with_blocks(plain: nn.Module, block: str, package: Any) -> nn.Module:
    return package.insert(plain, block, **({"gate": "sigmoid"} if block == "se" else {}))


def resnet50(norms: str = "eval") -> resnet.ResNet:
    torch.manual_seed(0)
    plain = awaken(training_step.resnet50())
    return freeze_batch_norms(plain) if norms == "FrozenBatchNorm2d" else plain  # type: ignore[return-value]


def folded(before: Any, block: str, shape: tuple[int, ...], layout: str, *, rounds: int, seconds: float) -> Row:
    models = filled(partial(with_blocks, resnet50().eval(), block), before)
    models = {name: package.fold(models[name]) for name, package in (("before", before), ("now", gcnet))}
    models = {name: model.to(memory_format=FORMATS[layout]) for name, model in models.items()}
    x = torch.randn(shape).to(memory_format=FORMATS[layout])
    with torch.inference_mode():
        check = difference(models["now"](x), models["before"](x))
        return row(check, inference_in_step(models, x, rounds=rounds, seconds=seconds))


def alone(before: Any, shape: tuple[int, ...], layout: str, *, rounds: int, seconds: float) -> Row:
    models = filled(lambda package: package.create_block("gc", shape[1]).eval(), before)
    x = torch.randn(shape).to(memory_format=FORMATS[layout])
    with torch.inference_mode():
        check = difference(models["now"](x) - x, models["before"](x) - x)
        functions = {name: partial(model.to(memory_format=FORMATS[layout]), x) for name, model in models.items()}
        return row(check, time_in_rounds(functions, rounds, seconds))


def training(before: Any, norms: str, layout: str, *, rounds: int, seconds: float) -> Row:
    models = filled(partial(with_blocks, resnet50(norms).train(), "gc"), before)
    for model in models.values():
        model.train().to(memory_format=FORMATS[layout])
        for module in model.modules():
            if norms == "eval" and isinstance(module, nn.BatchNorm2d):
                module.eval()
    small = torch.randn(2, 3, 64, 64)
    check = difference(*(training_step.step(models[name], small) for name in ("now", "before")))
    x = torch.randn(8, 3, 224, 224).to(memory_format=FORMATS[layout])
    return row(check, training_in_step(models, x, rounds=rounds, seconds=seconds))


def row(check: float, taken: dict[str, list[float]]) -> Row:
    assert check <= TOLERANCE, f"relative difference {check:.1e}"
    ms = {name: rounded(milliseconds(values)) for name, values in taken.items()}
    return {"difference": check, "ms": ms, "over": rounded(time_over(taken, "now", "before"))}


def table(rows: list[Row]) -> str:
    lines = []
    for one in rows:
        over = one["over"]
        verdict = "slower" if over["low"] > 1 else "faster" if over["high"] < 1 else "no difference"
        cells = [ms_cell(one["ms"]["before"]), ms_cell(one["ms"]["now"]), times_cell(over), verdict, over["n"]]
        lines.append(" | ".join(map(str, (one["case"], *cells))))
    slower = sum(one["over"]["low"] > 1 for one in rows)
    note = f"{INTERVALS} Slower by more than the interval: {slower} of {len(rows)} cells."
    return as_table("cell | before, ms | now, ms | now over before | verdict | rounds", lines) + f"\n\n{note}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--before", type=Path, required=True, help="folder of the earlier package: .../src/gcnet")
    arguments = start(parser)
    e = arguments.effort
    with tempfile.TemporaryDirectory() as folder:
        before = load_before(arguments.before, Path(folder))
        cases: dict[str, Callable[[], Row]] = {
            f"folded {block} {'x'.join(map(str, shape))} {layout}": partial(
                folded, before, block, shape, layout, rounds=round(40 * e), seconds=seconds * e / 2
            )
            for block in ("gc", "se")
            for shape, (seconds, _) in context_tax.INPUTS.items()
            for layout in FORMATS
        }
        cases |= {
            f"alone gc {'x'.join(map(str, shape))} {layout}": partial(
                alone, before, shape, layout, rounds=round(200 * e), seconds=6 * e
            )
            for shape in block_alone.SIZES
            for layout in FORMATS
        }
        cases |= {
            f"training {norms} {layout}": partial(training, before, norms, layout, rounds=round(40 * e), seconds=20 * e)
            for norms in training_step.NORMS
            for layout in FORMATS
        }
        about = "The rebuilt package against the one before it, ResNet-50 and GC blocks, float32, CPU"
        take("against_before", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
