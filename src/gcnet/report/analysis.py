"""`analyze` and its `Analysis`: what was measured, as text, as a page, as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from torch import nn

from gcnet.analysis.grids import MOST_IMAGES
from gcnet.analysis.measure import Findings, measure
from gcnet.files.atomic import write_text
from gcnet.report.distances import page, tables
from gcnet.report.figure import save_figure
from gcnet.report.page import check_target
from gcnet.report.terminal import as_text


@dataclass(frozen=True)
class Analysis(Findings):
    """How much each block's attention depends on its query; see `gcnet.analyze`.

    Attributes:
        model: The class of the model.
        images: How many were looked at, in all processes together.
        table: A row for each block, unrounded: `block` (its name in the model, "" for the model itself), `kind` (its
            class), `form` ("softmax", "dot_product", "concatenation"), `images`, `heads`, `positions`, `queries` (1 for
            a block with one map for all), `keys`, and the figures of `gcnet.analyze` with `_low` and `_high`, the ends
            of the 95 % interval. What a form does not have is NaN.
        heads: A row for each head: `block`, `head`, and the figures of its maps.
        scales: A row for each factor on the logits: `block`, `factor`, and `att_cos`, `att_jsd`, `entropy`. For factors
            other than 1 they are unbiased estimates from 32 queries an image.
        per_class: A row for each block and class, like `table`; by the labels given, else by the class that the model
            predicts; empty where it predicts none.
        verdicts: Name of a block -> "query-independent: GC would do", "query-dependent: keep NL" or "undecided", with
            the numbers behind it in `.numbers`; see `gcnet.analysis.verdict`.
        skipped: Name -> why a module that looks like attention could not be read.
        unreadable: File -> why it could not be read.
        kept: The first images with their maps on grids of at most 16x16, as many as `keep` asked for.
    """

    def save(self, path: str | Path) -> None:
        """Write what was found as a file that shows it.

        `.html`: the report, one file that needs no network and no server: pictures, the map of every position in all
        blocks and heads, distances, verdicts. Needs jinja2. `.png` and `.pdf`: `figure` with its defaults.

        Args:
            path: The file; its suffix says what becomes of it.

        Raises:
            ValueError: another suffix; for a figure, no image was kept.
            ModuleNotFoundError: the packages of the extra `report` are absent.
        """
        path = Path(path)
        if check_target(path) == ".html":
            write_text(path, page(self))
        else:
            self.figure(path)

    def figure(
        self,
        path: str | Path,
        *,
        images: Sequence[int] = (0,),
        queries: Sequence[tuple[float, float]] = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75)),
        blocks: Sequence[str] | None = None,
    ) -> None:
        """Write a figure for a paper: a row for each image and query, a column for each block. Needs matplotlib.

        Over the grey picture lies the mean map over heads (of a grid's cell the mean weight of its keys); the colours
        of a column have one scale, so its rows can be compared. The same analysis always gives the same file.

        Args:
            path: A file that ends in .png or .pdf.
            images: Which of `kept`, counted from 0.
            queries: Places in the picture, (from the top, from the left), each between 0 and 1.
            blocks: Names of blocks, in the order wanted; None: all whose positions are a 2D map.

        Raises:
            ValueError: another suffix, an image that was not kept, a place outside, a block that has no 2D map.
            ModuleNotFoundError: matplotlib is absent.
        """
        save_figure(self, Path(path), images=images, queries=queries, blocks=blocks)

    def __rich__(self) -> Group:
        return tables(self)

    def __str__(self) -> str:
        return as_text(self, 180)


def analyze(
    model: nn.Module, images: Any, *, transform: Callable[[Any], Any] | None = None, keep: int = MOST_IMAGES
) -> Analysis:
    """Measure how much the attention of every block depends on its query (arXiv 1904.11492, table 1).

    Read are the blocks of this package (`NonLocal` in its four forms, `DisentangledNonLocal`, and GC, SNL, SE and
    `ContextBlock` for comparison), the blocks of timm, mmcv and torchvision that `gcnet.accelerate` knows,
    `torch.nn.MultiheadAttention`, the attention of timm's vision transformers and Swins, and torchvision's Swins.

    Per image, averaged over heads and windows, over all ordered pairs of positions i, j (i = j among them):

    - `input_cos`, `output_cos`, `att_cos`: mean of (1 - cos) / 2 of the block's input vectors, of the context before
      fusion (behind the last layer and its norm), and of the attention maps; in closed form. `output_cos_no_bias` is
      without the part of the output that does not depend on the input, which can hide everything else.
    - `att_jsd`: mean Jensen-Shannon divergence of the maps, in nats; for softmax forms. Exact up to 1024 queries, above
      that an unbiased estimate from 1024 pairs; `att_jsd_error` is the standard error that this adds to the mean.
    - `att_spread`: share of the maps' energy that is not in their mean, 1 - |mean a|^2 / mean |a|^2.
    - `entropy`, `effective_positions` (its exponential, per query), `information` (nats that the query tells about
      where it looks).
    - `unary_share`: the logits split after arXiv 2006.06668 into a part that depends on the key only and the whitened
      pairwise rest; the variance share of the first. What depends on the query only cancels in the softmax.
    - `query_within`, `query_between`: variance of the queries inside an image, and of the images' mean queries: a query
      may be constant inside every image and yet differ between them.

    The figure of a data set is the mean over images, its interval the 95 % interval of Student's t over images, cut to
    the range that the figure can have; a single image has that whole range. Everything is float64 whatever the model's
    dtype, also under autocast. Memory does not grow with the number of images. With torch.distributed, call it
    in every process on a part of the images: each returns the result over all of them; only `kept`, `skipped` and
    `unreadable` are its own.

    Args:
        model: Any eager model in any mode, or a block itself; it runs in evaluation mode and stays as it was.
        images: A tensor (B, C, *spatial); an iterable of such batches, or of tuples (images, labels, ...) as a
            DataLoader gives them; or paths of image files and folders. A detector takes lists of images.
        transform: Applied to each PIL image (-> tensor (C, H, W)) or to each batch of tensors. None: tensors are
            taken as they are, files are prepared as the model says (models of `create_model`, timm's, checkpoints).
        keep: Of how many images, the first ones, pictures and maps are kept for `Analysis.save`; at most 12.

    Raises:
        ValueError: no block that can be read, no image, images that do not fit, keep out of its range.
        TypeError: images of another kind; the model is compiled, scripted or wrapped.

    Example:
        >>> import gcnet, torch
        >>> block = gcnet.blocks.NonLocal(8)
        >>> _ = torch.nn.init.zeros_(block.theta.weight)  # a query that is the same everywhere
        >>> found = analyze(block, torch.randn(4, 8, 5, 5))
        >>> found.verdicts[""], found.table[0]["att_cos"] < 1e-12
        ('query-independent: GC would do', True)
    """
    return Analysis(**vars(measure(model, images, transform, keep)))
