"""The closed forms of `simplify`: from the weights of a non-local block and one mean position to one map per image.

The algebra is derived in docs/decisions/0010-simplify-by-the-mean-query.md. It is computed in float64.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.blocks import BilinearAttention, ContextBlock, CrissCross, DisentangledNonLocal, DualAttention, NonLocal
from gcnet.blocks.as_made import tensors_of
from gcnet.errors import GcnetError
from gcnet.rewrites.simplification.one_map import Form, OneMapContext
from gcnet.surgery.foreign import is_foreign
from gcnet.surgery.narrow import affine
from gcnet.surgery.places import has_hooks

QUADRATIC = (NonLocal, DisentangledNonLocal)
NO_FORM: dict[type[nn.Module], str] = {
    CrissCross: "each query sees a row and a column of its own, so no map is shared",
    DualAttention: "its channel attention depends on the whole map and has no query",
    BilinearAttention: "its maps act between rows and between columns, not from a query to keys",
}


def kind_of(block: nn.Module) -> str | None:
    """How a block that `simplify` looks at is called in the report; None for any other module."""
    if isinstance(block, NonLocal):
        return f"NonLocal {block.pairwise}"
    if isinstance(block, (DisentangledNonLocal, *NO_FORM)):
        return type(block).__name__
    if is_foreign(block) and any("NonLocal" in kind.__name__ for kind in type(block).__mro__):
        return f"{type(block).__module__}.{type(block).__qualname__}"
    return None


def reason_to_keep(block: nn.Module) -> str | None:
    """Why a block has no closed form, whatever the images; None if it has."""
    if is_foreign(block):
        return "it is not ours: call gcnet.accelerate on the model first"
    for kind, reason in NO_FORM.items():
        if isinstance(block, kind):
            return reason
    if type(block) not in QUADRATIC or "forward" in vars(block):
        return "its forward is not that of the block we know"
    if any(has_hooks(module) for module in block.modules()):
        return "it carries a hook, which would be lost with it; remove it first"
    if isinstance(block, NonLocal) and block.subsample == "after":
        return "subsample='after' takes the maximum of the keys behind their layer, which is not linear in the query"
    norm = getattr(block, "norm", None)
    if norm is not None and (type(norm) not in (nn.BatchNorm1d, nn.SyncBatchNorm) or norm.running_mean is None):
        return f"its {type(norm).__name__} has no running statistics that could be merged"
    children = [child for child in block.children() if child is not norm]
    if any(tensors_of(child, nn.Linear) is None for child in children):
        return "one of its layers is no plain Linear any more"
    return None


def forms(block: nn.Module) -> Sequence[Form]:
    """The forms a block has, the cheapest first. The mean whitened query of DNL is zero in every image."""
    return ("shared",) if isinstance(block, DisentangledNonLocal) else ("shared", "image")


def structure(block: nn.Module, form: Form) -> ContextBlock | OneMapContext:
    """The replacement with weights yet to be filled: device, dtype, mode and frozen parameters as the block's.

    Raises:
        ValueError: the block has no such form.
    """
    reason = reason_to_keep(block)
    if reason is not None or form not in forms(block):
        raise GcnetError(f"a {type(block).__name__} cannot take the form {form!r}: {reason or 'it has no such form'}")
    assert isinstance(block, NonLocal | DisentangledNonLocal)
    values = block.g if isinstance(block, NonLocal) else block.value
    place = {"device": values.weight.device, "dtype": values.weight.dtype}
    channels, hidden = block.channels, values.out_features
    if isinstance(block, DisentangledNonLocal):
        new = OneMapContext(channels, hidden, pairwise="disentangled", **place)
    elif form == "shared" and not block.subsample and block.pairwise in ("gaussian", "embedded_gaussian"):
        new = ContextBlock(channels, hidden=hidden, norm=False, activation=None, **place)
    else:
        width = hidden if block.theta is None else block.theta.out_features
        new = OneMapContext(
            channels,
            hidden,
            pairwise=block.pairwise,
            query=form,
            width=width,
            scale=block.scale,
            subsample=bool(block.subsample),
            **place,
        )
    new.requires_grad_(any(parameter.requires_grad for parameter in block.parameters()))
    return new.train(block.training)


@torch.no_grad()
def closed_form(block: NonLocal | DisentangledNonLocal, form: Form, mean_C: Tensor) -> ContextBlock | OneMapContext:
    """The replacement whose query is that of the mean position.

    Args:
        block: the non-local block.
        form: "shared": the query of `mean_C` for all images; "image": that of each image's own mean.
        mean_C: mean position of the calibration images; not used by the form "image", nor by DNL.
    """
    new: Any = structure(block, form)
    mean_C = mean_C.double().cpu()
    value = block.g if isinstance(block, NonLocal) else block.value
    W_VC, b_V = _numbers(value)
    expand_CV, expand_C = _last_layer(block)
    if isinstance(block, DisentangledNonLocal):
        _fill(new.key, block.mask.weight, torch.zeros(1))
    else:
        _fill_map(new, block, form, mean_C)
        if block.pairwise == "concatenation":  # a factor below zero may not go inside the ReLU
            W_VC, b_V = block.scale * W_VC, block.scale * b_V
    _fill(new.add.reduce, W_VC, b_V)
    _fill(new.add.expand, expand_CV, expand_C)
    return new


def _fill_map(new: Any, block: NonLocal, form: Form, mean_C: Tensor) -> None:
    """Query and key of the four forms."""
    if block.theta is None or block.phi is None:
        if form == "shared":
            _fill(new.key, block.scale * mean_C[None], torch.zeros(1))
        return
    (W_q_DC, b_q_D), (W_k_DC, b_k_D) = _numbers(block.theta), _numbers(block.phi)
    query_D = W_q_DC @ mean_C + b_q_D
    if block.concat_weight is not None:
        w_q_D, w_k_D = block.concat_weight.detach().double().cpu().chunk(2)
        key_1C, constant = (w_k_D @ W_k_DC)[None], w_k_D @ b_k_D
        if form == "shared":
            _fill(new.key, key_1C, (constant + w_q_D @ query_D)[None])
        else:
            _fill(new.key, key_1C, None)
            _fill(new.query, (w_q_D @ W_q_DC)[None], (constant + w_q_D @ b_q_D)[None])
        return
    if form == "shared":
        dot = block.pairwise == "dot_product"  # in the softmax the constant cancels
        _fill(new.key, block.scale * (query_D @ W_k_DC)[None], (dot * block.scale * (query_D @ b_k_D))[None])
    else:
        _fill(new.query, block.scale * W_q_DC, block.scale * b_q_D)
        _fill(new.key, W_k_DC, b_k_D)


def _last_layer(block: NonLocal | DisentangledNonLocal) -> tuple[Tensor, Tensor]:
    """W_z and its bias, the norm behind it merged."""
    W_CV, b_C = _numbers(block.out)
    if block.norm is None:
        return W_CV, b_C
    gain_C, shift_C = affine(copy.deepcopy(block.norm).cpu().double(), b_C)
    return W_CV * gain_C[:, None], shift_C


def _numbers(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    weight = layer.weight.detach().double().cpu()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu()


def _fill(layer: nn.Module | None, weight: Tensor, bias: Tensor | None) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(weight)
    if layer.bias is not None:
        assert bias is not None
        layer.bias.copy_(bias)
