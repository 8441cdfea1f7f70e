"""A small network for scenes of digits that sees one cell at a time; blocks at its two spots give it context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetError
from gcnet.surgery import record


class SceneNet(nn.Module):
    """One feature vector per cell of 12x12 pixels, two spots for blocks, and a decision per cell.

    The coordinates are extra channels of the picture and of the cells: without them no block could tell which cell is
    the cue. A cell's vector sees 23x23 pixels, six beyond the cell on each side: all else must come from the
    blocks that `insert(model, block, at="spots.*")` puts at the spots. The items are named before the spots, so this
    auxiliary decision (without which nothing is learnt) does not depend on the block.

    Args:
        num_items: number of classes of the items.
        channels: width of the trunk and of the maps at the spots; at least 3.

    Shape:
        images (B, 1, 12 h, 12 w) -> marks (B, 2, h, w), items (B, num_items, h, w), both logits.
    """

    def __init__(self, num_items: int = 6, channels: int = 64) -> None:
        super().__init__()
        if num_items < 1:
            raise GcnetError(f"num_items={num_items} must be at least 1")
        if channels < 3:
            raise GcnetError(f"channels={channels} leaves no channel beside the two coordinates; use at least 3")
        self.trunk = nn.Sequential(_conv(3, 32, stride=2), _conv(32, channels, stride=2), _conv(channels, channels))
        self.cell = nn.Conv2d(channels, channels - 2, 3, stride=3)
        self.items = nn.Conv2d(channels, num_items, 1)
        self.spots = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.mixes = nn.ModuleList([_conv(channels, channels, size=1), _conv(channels, channels, size=1)])
        self.head = nn.Conv2d(channels, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.cell(self.trunk(_with_coordinates(images)))
        x = _with_coordinates(x)
        items = self.items(x)
        for spot, mix in zip(self.spots, self.mixes, strict=True):
            x = mix(spot(x))
        return self.head(x), items


def create_scene_net(name: str, *, num_classes: int) -> SceneNet:
    """The network with its record, for the table of `create_model`."""
    model = SceneNet(num_classes)
    record.set_architecture(model, "scenes", name, num_classes)
    return model


def _with_coordinates(x: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, x.shape[-2], dtype=x.dtype, device=x.device)
    columns = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([x, grid.expand(x.shape[0], -1, -1, -1)], dim=1)


def _conv(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
