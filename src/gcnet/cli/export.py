"""`gcnet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from gcnet.cli.options import whole_numbers


def export(
    weights: Annotated[Path, typer.Argument(metavar="IN", help="Folder of a run, or a file of weights.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to be written: .onnx or .pt2 (torch.export).")],
    fold: Annotated[
        bool | None,
        typer.Option("--fold/--no-fold", help="Merge norms and blocks into the convolutions; else: where that can be."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--input", help="Channels and size of an input, as 3,224,224; else what the model expects."),
    ] = None,
    fixed_size: Annotated[bool, typer.Option("--fixed-size", help="Any batch, but one size of input.")] = False,
    static: Annotated[bool, typer.Option("--static", help="One input at a time, of one size.")] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Of weights and arithmetic; inputs and outputs stay float32."),
    ] = None,
) -> None:
    """Write a model as ONNX or .pt2, for any batch and size, and compare the file with PyTorch.

    gcnet export runs/run1 model.onnx
    """
    if fixed_size and static:
        raise typer.BadParameter("--static already fixes the size; give one of the two", param_hint="--fixed-size")
    input_size = None if size is None else whole_numbers(size, "--input", "whole numbers such as 3,224,224")
    from gcnet.recipes.exporting import export as run

    result = run(
        weights,
        out,
        fold=fold,
        input_size=input_size,
        dynamic=False if static else "batch" if fixed_size else True,
        dtype=dtype,
    )
    console = Console(highlight=False, soft_wrap=True)
    state = "folded" if result.folded else "not folded"
    console.print(f"written: {result.path} ({result.size / 1e6:.1f} MB, {state})", markup=False)
    if result.unfolded_because is not None:
        console.print(f"not folded, since {result.unfolded_because}", markup=False)
    if result.agreement is None:
        typer.echo(f"gcnet: note: not compared with PyTorch: {result.unchecked_because}", err=True)
        return
    console.print(f"compared with PyTorch by {result.agreement.runtime}, relative difference:", markup=False)
    for shape, error in result.agreement.errors.items():
        by = "x".join(map(str, shape))
        console.print(f"  input {by}: {error:.1e} (allowed {result.agreement.allowed[shape]:.1e})", markup=False)
