"""Does a rewritten model give what the model gave? Both run on the same input; the worst layer is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision.models import detection

from gcnet.rewrites.errors import RewriteError
from gcnet.rewrites.probe import example_arguments

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_DETECTORS = (detection.FasterRCNN, detection.RetinaNet, detection.FCOS)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_same(model: nn.Module, rewritten: nn.Module, example: Any, verb: str) -> None:
    """Raise if the rewritten model does not give what the model gives, both in eval mode.

    Args:
        model: left as it was.
        rewritten: the new model.
        example: input or tuple of inputs; random if None. Detectors are compared at their backbone's outputs, since
            what comes behind depends on thresholds.
        verb: what was done, for the message.

    Raises:
        RewriteError: a relative difference (2-norm) above TOLERANCE for the dtype.
    """
    with small_images(model):
        arguments = example_arguments(model, example)
    if isinstance(model, _DETECTORS):  # what comes behind the backbone depends on thresholds
        with small_images(model):
            images = model.transform(list(arguments[0]))[0].tensors  # type: ignore[operator]
        model, rewritten, arguments = model.backbone, rewritten.backbone, (images,)  # type: ignore[assignment]
    outside = {name for name, module in rewritten.named_modules() if type(module) is type(_get(model, name))}
    outside = {
        name for name in outside if not isinstance(rewritten.get_submodule(name), nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        expected, expected_inside = _outputs(model, arguments, outside)
        found, found_inside = _outputs(rewritten, arguments, outside)
    finally:
        for module, training in modes.items():
            module.training = training
    error = difference(found, expected)
    allowed = max((TOLERANCE.get(t.dtype, 1e-4) for t in expected), default=1e-4)
    if not error <= allowed:
        inside = {name: difference(found_inside[name], expected_inside[name]) for name in found_inside}
        worst = max(inside, key=lambda name: inside[name], default="")
        where = f"; the worst layer is {worst!r} with {inside[worst]:.1e}" if worst else ""
        raise RewriteError(
            f"{verb} changes the outputs by {error:.1e} (relative, 2-norm; allowed {allowed:.0e}){where}. Give an "
            "example like the model's real input; if it stays, the model does something that this rewrite does not see"
        )


@contextmanager
def small_images(model: Any) -> Iterator[None]:
    """Inside, a torchvision detector scales its images to 128 pixels, not to 800: enough to see what feeds what."""
    if not isinstance(model, _DETECTORS):
        yield
        return
    transform = cast(Any, model.transform)
    sizes = transform.min_size, transform.max_size
    transform.min_size, transform.max_size = (128,), 256
    try:
        yield
    finally:
        transform.min_size, transform.max_size = sizes


def _get(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _outputs(model: nn.Module, arguments: Any, names: set[str]) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """Floating-point outputs of the model and, copied, of the named modules (their last call)."""
    inside: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: inside.__setitem__(name, [t.clone() for t in _floats(output)])

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names if name]
    try:
        with torch.no_grad():
            return _floats(model(*arguments)), inside
    finally:
        for handle in handles:
            handle.remove()


def _floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative difference in the 2-norm; infinite where shapes differ or numbers are lost."""
    if [t.shape for t in found] != [t.shape for t in expected]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = a.double(), b.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return float("inf")
        difference = torch.nan_to_num(a - b, posinf=0.0, neginf=0.0).norm() / torch.nan_to_num(b).norm().clamp_min(
            1e-30
        )
        worst = max(worst, difference.item())
    return worst
