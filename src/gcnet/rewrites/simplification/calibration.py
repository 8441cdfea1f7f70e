"""Calibration images for `simplify`: some fit, others are held out. What blocks see of them, how far off a form is.

B images, C channels, P positions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetTypeError, RewriteError
from gcnet.rewrites.simplification.one_map import added
from gcnet.surgery.probe import exact, first_line, floating_tensors
from gcnet.surgery.watching import watching

HELD_OUT = 4  # of so many images one is held out
FLOOR = 1e-4  # a contribution that varies by less than this share of itself counts as varying by that
LR = 1e-3

See = Callable[[Any, Tensor], None]


def divide(batches: Any, like: Tensor) -> tuple[list[Any], list[Any]]:
    """The inputs that fit and the inputs that are held out: every fourth image, or the last of fewer than four.

    Args:
        batches: iterable of inputs, each a tensor (B, ...), or a tuple or list whose first entry is the input; the
            other entries, such as labels, are not read. An input may also be a list of images. Or one tensor.
        like: floating-point inputs get its device and dtype.

    Raises:
        RewriteError: fewer than two images.
        TypeError: no iterable, or a batch that is something else.
    """
    if isinstance(batches, Tensor):
        batches = [batches]
    if isinstance(batches, str | bytes | Mapping) or not isinstance(batches, Iterable):
        raise GcnetTypeError(
            f"batches is a {type(batches).__name__}; give an iterable of input tensors, such as a loader"
        )
    fit: list[Any] = []
    held: list[Any] = []
    count = 0
    for batch in batches:
        images = _input(batch, like)
        chosen = [index for index in range(len(images)) if (count + index) % HELD_OUT == HELD_OUT - 1]
        others = [index for index in range(len(images)) if index not in set(chosen)]
        for part, indices in ((fit, others), (held, chosen)):
            if indices:
                part.append(images[indices] if isinstance(images, Tensor) else [images[index] for index in indices])
        count += len(images)
    if count < 2:
        raise RewriteError(
            f"batches holds {count or 'no'} image{'s' * (count != 1)}; give at least 2, better some hundreds: most fit "
            "the new blocks, every fourth is held out to measure them (a generator that was used up gives none)"
        )
    if not held:
        held, fit[-1] = [fit[-1][-1:]], fit[-1][:-1]
        fit = [images for images in fit if len(images)]
    return fit, held


def _input(batch: Any, like: Tensor) -> Any:
    given = batch
    if isinstance(batch, tuple | list) and len(batch):
        batch = batch[0]
    if isinstance(batch, Tensor) and batch.ndim:
        return _moved(batch, like)
    if isinstance(batch, list) and all(isinstance(image, Tensor) for image in batch) and batch is not given:
        return [_moved(image, like) for image in batch]
    raise GcnetTypeError(
        f"batches yields a {type(given).__name__} that is no input: expected a tensor (B, ...), or a tuple or list "
        "whose first entry is that tensor (or, for a detector, the list of images)"
    )


def _moved(images: Tensor, like: Tensor) -> Tensor:
    return images.to(like.device, like.dtype if images.is_floating_point() else None)


def watch(model: nn.Module, inputs: Iterable[Any], blocks: Iterable[nn.Module], see: See) -> None:
    """Run the model on each input without gradients, and call `see(block, x)` for each map that reaches a block."""

    def note(_: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if len(x):
            see(block, x)

    with watching({str(index): block for index, block in enumerate(blocks)}, note):
        for images in inputs:
            run(model, images)


def run(model: nn.Module, images: Any, *, grad: bool = False) -> Any:
    images = images.clone() if isinstance(images, Tensor) else [image.clone() for image in images]  # it may write there
    try:
        with torch.set_grad_enabled(grad):
            return model(images)
    except Exception as error:  # whatever the model raises on what it does not take
        shape = tuple(images.shape) if isinstance(images, Tensor) else f"a list of {len(images)} images"
        raise RewriteError(f"batches: the model fails on an input ({shape}): {first_line(error)}") from error


class Mean:
    """Mean over images of a vector per image; float64."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, vectors_BC: Tensor) -> None:
        self.total = self.total + exact(vectors_BC).sum(0)
        self.count += len(vectors_BC)

    @property
    def value(self) -> Tensor:
        assert isinstance(self.total, Tensor)
        return self.total / self.count


class Errors:
    """The error of one block's forms over the held-out images, as `SimplifiedBlock` defines it."""

    def __init__(self) -> None:
        self.images = self.positions = 0
        self.squares = self.within = 0.0
        self.sum_C: Tensor | float = 0.0
        self.shape: tuple[int, ...] = ()
        self.differences: dict[str, list[float]] = {}

    def add(self, x: Tensor, contribution: Tensor, forms: Mapping[str, Any]) -> None:
        c_BCP = exact(contribution.flatten(2))
        self.images += c_BCP.shape[0]
        self.positions += c_BCP.shape[0] * c_BCP.shape[2]
        self.squares += c_BCP.square().sum().item()
        self.within += (c_BCP - c_BCP.mean(2, keepdim=True)).square().sum().item()
        self.sum_C = self.sum_C + c_BCP.sum((0, 2))
        self.shape = max(self.shape, tuple(x.shape), key=math.prod) if self.shape else tuple(x.shape)
        for label, form in forms.items():
            added_BC = exact(added(form, x).to(x.dtype))
            difference_B = (added_BC[..., None] - c_BCP).square().sum((1, 2))
            self.differences.setdefault(label, []).extend(difference_B.tolist())

    def scale(self) -> float:
        """|c - m|, at least FLOOR |c|."""
        assert isinstance(self.sum_C, Tensor)
        varying = self.squares - self.sum_C.square().sum().item() / self.positions
        return math.sqrt(max(varying, FLOOR**2 * self.squares, 0.0))

    def least(self) -> float:
        """The error of the mean over the positions of each image: no vector per image has a smaller one."""
        return _ratio(math.sqrt(self.within), self.scale())

    def of(self, label: str) -> tuple[float, float, float]:
        """Error, that of the worst image, and the error with the constant part of c."""
        squares = self.differences[label]
        error, worst, norm = math.sqrt(sum(squares)), math.sqrt(max(squares)), math.sqrt(self.squares)
        scale = self.scale()
        return _ratio(error, scale), _ratio(worst * math.sqrt(self.images), scale), _ratio(error, norm)


def _ratio(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b) or math.isinf(b):
        return math.nan
    return a / b if b else (0.0 if a == 0 else math.inf)


def refined(model: nn.Module, inputs: list[Any], forms: Mapping[Any, Mapping[str, Any]], steps: int) -> dict[Any, Any]:
    """Copies of all forms after some steps of Adam that bring them closer to what their block adds.

    One input per step, in turn, serves all blocks at once; the loss is the square of the error, and the step size goes
    to zero in a straight line. Weights are float32 or wider meanwhile.
    """
    copies: dict[Any, dict[str, Any]] = {}
    adams: dict[nn.Module, torch.optim.Adam] = {}
    for block, own in forms.items():
        copies[block] = {label: _wide(copy.deepcopy(form)).requires_grad_(True) for label, form in own.items()}
        for form in copies[block].values():
            adams[form] = torch.optim.Adam(form.parameters(), LR)
    for step in range(steps):
        for adam in adams.values():
            adam.param_groups[0]["lr"] = LR * (1 - step / steps)

        def see(block: Any, x: Tensor) -> None:
            contribution = _wide(block.context(x)).flatten(2)
            power = (contribution - contribution.mean((0, 2), keepdim=True)).square().mean() + 1e-30
            x = _wide(x).clone()
            for form in copies[block].values():
                with torch.enable_grad():
                    loss = (added(form, x)[..., None] - contribution).square().mean() / power
                    loss.backward()
                adams[form].step()
                adams[form].zero_grad()

        watch(model, [inputs[step % len(inputs)]], forms, see)
    for block, own in copies.items():
        for label, form in own.items():
            like = next(forms[block][label].parameters())
            form.to(like.dtype).requires_grad_(like.requires_grad)
    return copies


def distil(model: nn.Module, simplified: nn.Module, inputs: list[Any], new: Sequence[nn.Module], steps: int) -> None:
    """Train the new blocks, and nothing else, for some steps towards the outputs of the original model, in place.

    The loss is the mean over the output tensors of |new - old|^2 / |old - mean(old)|^2. Both models are in eval mode.
    """
    flags = {parameter: parameter.requires_grad for parameter in simplified.parameters()}
    simplified.requires_grad_(False)
    parameters = list(dict.fromkeys(p for block in new for p in block.requires_grad_(True).parameters()))
    adam = torch.optim.Adam(parameters, LR)
    for step in range(steps):
        adam.param_groups[0]["lr"] = LR * (1 - step / steps)
        images = inputs[step % len(inputs)]
        old = floating_tensors(run(model, images))
        with torch.enable_grad():
            outputs = zip(floating_tensors(run(simplified, images, grad=True)), old, strict=True)
            losses = [(a - b).square().mean() / ((b - b.mean()).square().mean() + 1e-30) for a, b in outputs]
            torch.stack([loss for loss in losses if loss.requires_grad]).mean().backward()
        adam.step()
        adam.zero_grad()
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)


def output_error(model: nn.Module, simplified: nn.Module, inputs: Iterable[Any]) -> float | None:
    """|new - old| / |old| of the outputs, the largest over the output tensors; None if they cannot be compared."""
    sums: dict[int, tuple[float, float]] = {}
    for images in inputs:
        old, new = floating_tensors(run(model, images)), floating_tensors(run(simplified, images))
        if not old or [t.shape for t in old] != [t.shape for t in new]:
            return None
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            difference, norm = sums.get(index, (0.0, 0.0))
            a, b = exact(a), exact(b)
            sums[index] = difference + (b - a).square().sum().item(), norm + a.square().sum().item()
    return max((math.sqrt(_ratio(difference, norm)) for difference, norm in sums.values()), default=None)


def _wide(value: Any) -> Any:
    half = value.dtype if isinstance(value, Tensor) else next(value.parameters()).dtype
    return value.float() if half in (torch.float16, torch.bfloat16) else value
