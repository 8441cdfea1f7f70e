"""What `simplify` found and did, block by block."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SimplifiedBlock:
    """One non-local block of the model.

    With c what the block adds to its input, c' what the replacement would add, both on the held-out images, and m the
    mean of c over all their positions and images: `error = |c' - c| / |c - m|` in the 2-norm, sums over all images,
    positions and channels. |c - m| is taken as at least 1e-4 |c|, for a block that adds a constant.

    Attributes:
        name: in the model.
        kind: the block's class, and its pairwise function.
        replaced: whether it was replaced; otherwise it was kept as it was.
        form: that of the replacement, or of the best one tried: "shared", "image"; None if there is none.
        refined: whether that form was refined.
        error: of that form; None if none could be tried.
        errors: of all forms tried, such as {"shared": 0.3, "image": 0.01}.
        worst_image: the largest error of one held-out image, on the same scale: the mean of its squares over the
            images is `error` squared.
        least_error: that of each image's mean of c: what adds one vector per image cannot come below it. It tells
            how far the block depends on its query, whatever the form.
        error_with_constant: |c' - c| / |c|, which a large constant in c makes small.
        changed: share of the model's decisions on the held-out images that change with this block replaced by that form
            and those that were replaced before it; None if `error` decided, or nothing could be tried.
        reason: why it was kept; None if it was replaced.
        shape: of its input on the largest held-out batch.
        speed_up: time of the block over that of its replacement on an input of that shape (up to 8 images): median,
            and the two ends of its 95 % interval. None if it was kept or the time was not measured.
    """

    name: str
    kind: str
    replaced: bool = False
    form: str | None = None
    refined: bool = False
    error: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    worst_image: float | None = None
    least_error: float | None = None
    error_with_constant: float | None = None
    changed: float | None = None
    reason: str | None = None
    shape: tuple[int, ...] | None = None
    speed_up: tuple[float, float, float] | None = None

    @property
    def label(self) -> str:
        """The form, and whether it was refined, as `errors` names them."""
        return f"{self.form}, refined" if self.refined else str(self.form)


@dataclass(frozen=True)
class Simplification:
    """The report of `simplify`.

    Attributes:
        blocks: all non-local blocks, in the model's order.
        max_error: what was allowed.
        refine_steps: steps of refinement.
        images: how many were used to fit, and how many were held out.
        output_error: |new - old| / |old| of the model's outputs on the held-out images, the largest over its output
            tensors; None where outputs are no tensors of equal shapes.
        distilled: whether the new blocks were brought closer to the outputs together, at the end of the refinement.
        changed: share of the model's decisions on the held-out images that are other ones now, of the output tensor
            with the largest share: accuracy on these images cannot have fallen by more. None for a model that does not
            say that it gives class scores (`gcnet.rewrites.simplification.decisions.Decisions`).
        decisions: how many decisions that were; 0 for such a model.
    """

    blocks: tuple[SimplifiedBlock, ...]
    max_error: float
    refine_steps: int
    images: tuple[int, int]
    output_error: float | None
    distilled: bool = False
    changed: float | None = None
    decisions: int = 0

    @property
    def replaced(self) -> list[str]:
        """Names of the blocks that were replaced."""
        return [block.name for block in self.blocks if block.replaced]

    @property
    def kept(self) -> dict[str, str]:
        """Name of each block that was kept -> why."""
        return {block.name: block.reason or "" for block in self.blocks if not block.replaced}

    @property
    def table(self) -> list[dict[str, Any]]:
        """One dict per block, unrounded."""
        return [dict(vars(block)) for block in self.blocks]

    def __str__(self) -> str:
        lines = []
        for block in self.blocks:
            error = "" if block.error is None else f", error {block.error:.2g} ({block.label})"
            changed = "" if block.changed is None else f", {block.changed:.2g} of the decisions change"
            speed = "" if block.speed_up is None else f", {block.speed_up[0]:.1f} times faster"
            said = "replaced" if block.replaced else f"kept: {block.reason}"
            lines.append(f"{block.name or 'the model'} ({block.kind}){error}{changed}{speed}: {said}")
        outputs = "not comparable" if self.output_error is None else f"differ by {self.output_error:.2g}"
        lines.append(f"outputs on {self.images[1]} held-out images: {outputs}")
        if self.changed is not None:
            lines[-1] += f", {self.changed:.2%} of {self.decisions} decisions changed"
        return "\n".join(lines)
