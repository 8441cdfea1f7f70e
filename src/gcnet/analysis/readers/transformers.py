"""Attention of PyTorch, timm and torchvision, read from a call. Legend as in `attention.py`, E = H * D.

Input and output are those of the attention module itself: a transformer's norm comes before it, its addition after.
In windowed attention pairs are taken inside a window only, and a window's padding counts as positions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.analysis.readers.attention import Attention, Call, Reader, Seen


def read_multihead(module: Any, seen: Seen) -> Call:
    """torch.nn.MultiheadAttention."""
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
    given = {**dict(zip(names, seen.args, strict=False)), **seen.kwargs}
    query, key = (_batched(given[name], module.batch_first) for name in ("query", "key"))
    if module.bias_k is not None or module.add_zero_attn:
        raise NotReadableError("bias_k and add_zero_attn add keys that are no positions")
    E, H, images = module.embed_dim, module.num_heads, seen.images
    if module.in_proj_weight is not None:
        w_q, w_k, _ = module.in_proj_weight.chunk(3)
    else:
        w_q, w_k = module.q_proj_weight, module.k_proj_weight
    b_q, b_k, b_v = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    q_BWHPD, k_BWHQD = (
        _heads(_windows(F.linear(t, w, b), images), H) for t, w, b in ((query, w_q, b_q), (key, w_k, b_k))
    )
    mask = _added(given.get("attn_mask"))
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (images, -1, H))
    padding = _added(given.get("key_padding_mask"))
    if padding is not None:
        padding = padding.unflatten(0, (images, -1))[:, :, None, None]
        mask = padding if mask is None else mask + padding
    y = _batched(seen.output[0], module.batch_first)
    v = query.new_zeros(E) if b_v is None else b_v
    attention = Attention(q_BWHPD, k_BWHQD, scale=1 / math.sqrt(E // H), mask=mask)
    return Call(_windows(query, images), _windows(y, images), module.out_proj(v.to(w_q)), attention)


def read_timm_attention(module: Any, seen: Seen) -> Call:
    """timm.layers.Attention, that of its vision transformers."""
    x, images = seen.x, seen.images
    given = dict(zip(("attn_mask", "is_causal"), seen.args[1:], strict=False)) | dict(seen.kwargs)
    if given.get("is_causal"):
        raise NotReadableError("it is causal")
    q, k, v_E = _split(module.qkv, x, module.num_heads)
    q_BWHPD, k_BWHQD = (_windows(t, images) for t in (module.q_norm(q), module.k_norm(k)))
    mask = _added(given.get("attn_mask"), keep=True)
    if mask is not None and mask.ndim == 4:
        mask = mask[:, None] if len(mask) in (1, images) else mask.unflatten(0, (images, -1))
    plain = getattr(module, "gate", None) is None and isinstance(getattr(module, "norm", None), nn.Identity | None)
    constant = module.proj(v_E) if plain else None
    attention = Attention(q_BWHPD, k_BWHQD, scale=module.scale, mask=mask)
    return Call(_windows(x, images), _windows(seen.output, images), constant, attention)


def read_timm_window(module: Any, seen: Seen) -> Call:
    """timm's WindowAttention, that of its Swin transformers (arXiv 2103.14030); it is called with all windows."""
    x, images = seen.x, seen.images
    mask = seen.args[1] if len(seen.args) > 1 else seen.kwargs.get("mask")
    q, k, v_E = _split(module.qkv, x, module.num_heads)
    q_BWHPD, k_BWHQD = (_windows(t, images) for t in (q, k))
    attention = Attention(
        q_BWHPD,
        k_BWHQD,
        scale=module.scale,
        bias=module.relative_position_bias_table[module.relative_position_index].movedim(2, 0),
        mask=None if mask is None else mask[:, None],
    )
    return Call(_windows(x, images), _windows(seen.output, images), module.proj(v_E), attention)


def read_torchvision_window(module: Any, seen: Seen) -> Call:
    """torchvision's ShiftedWindowAttention and its V2 (arXiv 2111.09883), on the whole map (B, H, W, C)."""
    sizes = [-(-n // w) * w for n, w in zip(seen.x.shape[1:3], module.window_size, strict=True)]
    shift = [0 if w >= n else s for s, w, n in zip(module.shift_size, module.window_size, sizes, strict=True)]

    def windows(x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, sizes[1] - x.shape[2], 0, sizes[0] - x.shape[1]))
        x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        x = x.unflatten(2, (-1, module.window_size[1])).unflatten(1, (-1, module.window_size[0]))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, W, P, C)

    x_BWPC = windows(seen.x)
    bias = module.qkv.bias
    cosine = getattr(module, "logit_scale", None)
    if cosine is not None and bias is not None:
        bias = bias.clone()
        bias.chunk(3)[1].zero_()
    q_BWHPD, k_BWHQD = (
        _heads(t, module.num_heads) for t in F.linear(x_BWPC, module.qkv.weight, bias).chunk(3, dim=-1)[:2]
    )
    scale: float | Tensor = q_BWHPD.shape[-1] ** -0.5
    if cosine is not None:
        q_BWHPD, k_BWHQD = F.normalize(q_BWHPD, dim=-1), F.normalize(k_BWHQD, dim=-1)
        scale = cosine.clamp(max=math.log(100)).exp()
    mask = None
    if any(shift):
        region = torch.zeros(1, *sizes, 1, device=x_BWPC.device)  # windows wrap around the border: mark what belongs
        for number, (axis, s) in enumerate(zip((1, 2), shift, strict=True)):
            if s:
                wrapped = torch.arange(sizes[axis - 1], device=region.device) < s
                region += 2**number * wrapped.view([-1 if d == axis else 1 for d in range(4)])
        region_WP = windows(region)[0, :, :, 0]
        mask = -100.0 * (region_WP[:, None, :] != region_WP[:, :, None])[:, None]
    v = x_BWPC.new_zeros(x_BWPC.shape[-1]) if bias is None else bias.chunk(3)[2]
    attention = Attention(q_BWHPD, k_BWHQD, scale=scale, bias=module.get_relative_position_bias(), mask=mask)
    return Call(x_BWPC, windows(seen.output), module.proj(v), attention)


class NotReadableError(Exception):
    """A call whose maps cannot be told; the message says why."""


def _batched(t: Tensor, batch_first: bool) -> Tensor:
    """(B, P, C) of what MultiheadAttention takes and gives."""
    if t.ndim == 2:
        return t[None]
    return t if batch_first else t.transpose(0, 1)


def _windows(t: Tensor, images: int) -> Tensor:
    """(B * W, ...) -> (B, W, ...)."""
    if len(t) % images:
        raise NotReadableError(f"it is called on {len(t)} sequences for {images} images")
    return t.unflatten(0, (images, -1))


def _heads(t: Tensor, heads: int) -> Tensor:
    """(..., P, E) -> (..., H, P, D)."""
    return t.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _split(qkv: Any, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys (B, H, P, D), and the values' constant part (E,), of one layer for all three."""
    q, k, _ = (_heads(t, heads) for t in qkv(x).chunk(3, dim=-1))
    bias = x.new_zeros(qkv.weight.shape[0]) if qkv.bias is None else qkv.bias
    return q, k, bias.chunk(3)[2].to(qkv.weight)


def _added(mask: Tensor | None, *, keep: bool = False) -> Tensor | None:
    """A mask as what is added to the logits; True of a boolean one means keep or, in PyTorch's module, leave out."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask if keep else mask, -math.inf)


FOREIGN: dict[str, Reader] = {
    "torch.nn.modules.activation.MultiheadAttention": read_multihead,
    "timm.layers.attention.Attention": read_timm_attention,
    "timm.models.swin_transformer.WindowAttention": read_timm_window,
    "torchvision.models.swin_transformer.ShiftedWindowAttention": read_torchvision_window,
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2": read_torchvision_window,
}
