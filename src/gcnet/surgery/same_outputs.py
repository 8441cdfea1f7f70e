"""Does a rewritten model give what the model gave? Both run on the same input; the worst layer is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gcnet.errors import RewriteError
from gcnet.surgery.frames import before_thresholds, small_images
from gcnet.surgery.probe import CONVS, evaluating, example_arguments, floating_tensors, tensors_in
from gcnet.surgery.watching import watching

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


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
        part, arguments = before_thresholds(model, arguments)
    model, rewritten = model.get_submodule(part), rewritten.get_submodule(part)
    with evaluating(model), _full_float32():
        expected, found = _outputs(model, arguments), _outputs(rewritten, arguments)
        if not expected:
            raise RewriteError(
                f"{verb} compares outputs, and the model returns no floating-point tensor; give a model whose "
                "output holds one (tensors in sequences, mappings and objects are found)"
            )
        error = difference(found, expected)
        allowed = max(TOLERANCE.get(t.dtype, 1e-4) for t in expected)
        if error <= allowed:
            return
        worst = _worst_layer(model, rewritten, arguments)
    raise RewriteError(
        f"{verb} changes the outputs by {error:.1e} (relative, 2-norm; allowed {allowed:.0e}){worst}. Give an "
        "example like the model's real input; if it stays, the model does something that this rewrite does not see"
    )


@contextmanager
def _full_float32() -> Iterator[None]:
    """Inside, GPUs do not round float32 products to TF32: merged weights would round differently."""
    backends: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    allowed = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, value in zip(backends, allowed, strict=True):
            backend.allow_tf32 = value


def _outputs(model: nn.Module, arguments: Any) -> list[Tensor]:
    """Floating-point outputs of the model. It gets copies, since it may write into its input."""
    with torch.no_grad():
        return floating_tensors(model(*tree_map_only(Tensor, torch.clone, arguments)))


def _worst_layer(model: nn.Module, rewritten: nn.Module, arguments: Any) -> str:
    """The module with the largest difference, among those that both call equally often with the same shapes."""
    new, old = dict(rewritten.named_modules()), dict(model.named_modules())
    names = [name for name in new if name and type(new[name]) is type(old.get(name))]
    names = [name for name in names if not isinstance(new[name], CONVS)]  # they may hold what came behind them
    expected = _outputs_inside(model, {name: old[name] for name in names}, arguments)
    found = _outputs_inside(rewritten, {name: new[name] for name in names}, arguments)
    differences = {name: difference(found[name], expected[name]) for name in names if expected[name]}
    differences = {name: value for name, value in differences.items() if value < float("inf")}
    worst = max(differences, key=lambda name: differences[name], default="")
    return f"; the worst layer is {worst!r} with {differences[worst]:.1e}" if worst else ""


def _outputs_inside(model: nn.Module, modules: dict[str, nn.Module], arguments: Any) -> dict[str, list[Tensor]]:
    """What the named modules put out, over all their calls."""
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}
    with watching(modules, lambda name, *call: seen[name].extend(t.clone() for t in tensors_in(call[-1]))):
        _outputs(model, arguments)
    return seen


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative difference in the 2-norm; infinite where shapes differ or numbers are lost."""
    if [t.shape for t in found] != [t.shape for t in expected]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = (t.cpu().double() for t in (a, b))  # not every device has float64
        if not torch.equal(a.isfinite(), b.isfinite()):
            return float("inf")
        distance = torch.nan_to_num(a - b, posinf=0.0, neginf=0.0).norm()
        worst = max(worst, (distance / torch.nan_to_num(b).norm().clamp_min(1e-30)).item())
    return worst
