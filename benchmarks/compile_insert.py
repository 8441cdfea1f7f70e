"""`torch.compile(fullgraph=True)` with inductor of every family and every block: it compiles, the outputs are equal.

Slow (a compilation takes up to a minute on two cores): python benchmarks/compile_insert.py --run
"""

import argparse
import sys
import time
from pathlib import Path

import torch

import gcnet
from measure import write

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.rewrites.models import FAMILIES, awake, build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="really run: takes some ten minutes")
    if not parser.parse_args().run:
        print("compile_insert: slow, skipped; add --run")
        return
    blocks = gcnet.list_blocks()
    pairs = [(family, blocks[i % len(blocks)]) for i, family in enumerate(FAMILIES)]
    rows, lines = [], ["| family | block | seconds to compile | largest relative difference |", "|---|---|---|---|"]
    for family, block in pairs:
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = build(family)
        result = gcnet.insert(getattr(model, "backbone", model), block, **({"block_size": 1} if block == "bat" else {}))
        awake(result, gcnet.inserted(result))
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            expected = _flat(result(x))
            began = time.perf_counter()
            out = _flat(torch.compile(result, fullgraph=True)(x))
        seconds = time.perf_counter() - began
        difference = float((out - expected).norm() / expected.norm())
        assert difference <= 1e-4, (family, block, difference)
        rows.append({"family": family, "block": block, "seconds": round(seconds, 1), "difference": difference})
        lines.append(f"| {family} | {block} | {seconds:.0f} | {difference:.0e} |")
        print(lines[-1], flush=True)
    write("compile_insert", rows, "torch.compile(fullgraph=True), inductor, CPU", "\n".join(lines))


def _flat(value: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([v.flatten() for v in value.values()]) if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
