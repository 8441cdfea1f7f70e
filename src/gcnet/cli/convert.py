"""`gcnet convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Checkpoint of mmdetection, torchvision or timm (.pth, .safetensors).")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to be written: .safetensors.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file whose name carries a hash that is not its own.")
    ] = False,
) -> None:
    """Turn a published checkpoint into one of gcnet, without running any code that is in it.

    gcnet convert mask_rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco.pth gc-mask-rcnn.safetensors
    """
    from gcnet.recipes.conversion import convert as run

    result = run(source, out, strict=strict)
    console = Console(highlight=False, soft_wrap=True)
    found = result.architecture
    console.print(f"read:    {source} ({result.source}), {result.tensors} tensors, all of them used", markup=False)
    console.print(f"model:   {found['name']}, {found['num_classes']} classes", markup=False)
    for rewrite in found["rewrites"]:
        console.print(f"         {_told(rewrite)}", markup=False)
    for line in found["assumed"]:
        console.print(f"assumed: {line}", markup=False)
    console.print(
        f"written: {result.path} ({result.path.stat().st_size / 1e6:.1f} MB); outputs are equal", markup=False
    )


def _told(rewrite: dict) -> str:
    """A rewrite on record in one line."""
    settings = {key: value for key, value in rewrite.items() if key not in ("rewrite", "options") and value is not None}
    settings |= rewrite.get("options", {})
    return f"{rewrite['rewrite']}: " + ", ".join(
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in settings.items()
    )
