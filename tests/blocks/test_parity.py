"""Our blocks against mmcv's and timm's: stored outputs and gradients of the real ones, and the real ones live.

Values are compared as out - x too: x would hide a wrong context. Tables map our parameter names to theirs.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gcnet.blocks import ContextBlock, NonLocal

Table = dict[str, str]


def branch(ours: str, theirs: tuple[str, str, str]) -> Table:
    names = zip(("reduce", "norm", "expand"), theirs, strict=True)
    return {f"{ours}.{a}.{kind}": f"{b}.{kind}" for a, b in names for kind in ("weight", "bias")}


def layers(**pairs: str) -> Table:
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")}


# ---- one entry per foreign class: how to build ours from their arguments, and the names


def from_mmcv_context(
    in_channels: int, ratio: float, pooling_type: str, fusion_types: list[str]
) -> tuple[nn.Module, Table]:
    fusion = {("channel_add",): "add", ("channel_mul",): "scale"}.get(tuple(fusion_types), "both")
    block = ContextBlock(
        in_channels,
        pool="attention" if pooling_type == "att" else "average",
        fusion=fusion,  # type: ignore[arg-type]
        hidden=int(in_channels * ratio),
    )
    table = {
        **layers(key="conv_mask"),
        **branch("add", ("channel_add_conv.0", "channel_add_conv.1", "channel_add_conv.3")),
        **branch("scale", ("channel_mul_conv.0", "channel_mul_conv.1", "channel_mul_conv.3")),
    }
    return block, table


def from_mmcv_nonlocal(
    in_channels: int,
    reduction: int,
    use_scale: bool,
    mode: str,
    sub_sample: bool = False,
    norm_cfg: dict[str, Any] | None = None,
) -> tuple[nn.Module, Table]:
    scaled = use_scale and mode == "embedded_gaussian"
    block = NonLocal(
        in_channels,
        pairwise=mode,  # type: ignore[arg-type]
        reduction=reduction,
        scale=(in_channels // reduction) ** -0.5 if scaled else 1.0,
        subsample="after" if sub_sample else False,
        norm="batch" if norm_cfg else None,
    )
    inner = ".0" if sub_sample else ""
    table = layers(
        theta="theta.conv", phi=f"phi{inner}.conv", g=f"g{inner}.conv", out="conv_out.conv", norm="conv_out.bn"
    )
    table["concat_weight"] = "concat_project.conv.weight"
    table.update({f"norm.{name}": f"conv_out.bn.{name}" for name in ("running_mean", "running_var")})
    return block, table


def from_timm_context(
    channels: int, use_attn: bool = True, fuse_add: bool = False, fuse_scale: bool = True, rd_ratio: float = 1 / 8
) -> tuple[nn.Module, Table]:
    block = ContextBlock(
        channels,
        pool="attention" if use_attn else "average",
        fusion="both" if fuse_add and fuse_scale else "add" if fuse_add else "scale",
        hidden=int(channels * rd_ratio),
    )
    for part in (block.add, block.scale):
        if part is not None:
            part.norm.eps = 1e-6  # type: ignore[union-attr]
    names = ("mlp_{}.fc1", "mlp_{}.norm", "mlp_{}.fc2")
    table = layers(key="conv_attn")
    for part in ("add", "scale"):
        table.update(branch(part, tuple(name.format(part) for name in names)))  # type: ignore[arg-type]
    return block, table


def from_timm_se(
    channels: int,
    rd_ratio: float | None = None,
    rd_divisor: int = 8,
    add_maxpool: bool = False,
    bias: bool = True,
    gate_layer: str = "sigmoid",
) -> tuple[nn.Module, Table]:
    assert not add_maxpool
    hidden = int(channels * rd_ratio) if rd_ratio else 8
    block = ContextBlock(
        channels,
        pool="average",
        fusion="scale",
        norm=False,
        hidden=hidden,
        bias=bias,
        gate=gate_layer,  # type: ignore[arg-type]
    )
    return block, {**layers(**{"scale.reduce": "fc1", "scale.expand": "fc2"})}


def from_timm_nonlocal(
    in_channels: int, use_scale: bool = True, rd_ratio: float | None = None, rd_divisor: int = 8
) -> tuple[nn.Module, Table]:
    reduction = round(1 / rd_ratio) if rd_ratio else 2
    block = NonLocal(
        in_channels,
        reduction=reduction,
        scale=in_channels**-0.5 if use_scale else 1.0,  # timm scales by all channels, not by the reduced ones
        norm="batch",
    )
    table = {**layers(theta="t", phi="p", g="g", norm="norm"), "out.weight": "z.weight"}
    table.update({f"norm.{name}": f"norm.{name}" for name in ("running_mean", "running_var")})
    return block, table


READERS: dict[str, Callable[..., tuple[nn.Module, Table]]] = {
    "mmcv_context_block": from_mmcv_context,
    "mmcv_nonlocal2d": from_mmcv_nonlocal,
    "mmcv_nonlocal1d3d": from_mmcv_nonlocal,
    "timm_global_context": from_timm_context,
    "timm_se": from_timm_se,
    "timm_nonlocal_attn": from_timm_nonlocal,
}
NOT_OURS = ("add_maxpool", "norm_layer")  # options of timm's SEModule that are no part of the framework


def filled(source: str, kwargs: dict[str, Any], weights: dict[str, Tensor]) -> tuple[nn.Module, Table]:
    """Our block with their weights; every one of their parameters must have found its place."""
    block, table = READERS[source](**{k: v for k, v in kwargs.items() if v or k not in NOT_OURS})
    own = block.double().state_dict()
    table = {ours: theirs for ours, theirs in table.items() if theirs in weights and ours in own}
    state = {ours: weights[theirs].reshape(own[ours].shape) for ours, theirs in table.items()}
    unused = set(weights) - set(table.values()) - {name for name in weights if name.endswith("num_batches_tracked")}
    if source == "timm_nonlocal_attn":  # W_z has a bias there although a norm follows: it moves into the running mean
        unused -= {"z.bias"}
        state["norm.running_mean"] = state["norm.running_mean"] - weights["z.bias"]
    assert not unused, unused
    missing = block.load_state_dict(state, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return block, table


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def compare(block: nn.Module, table: Table, case: dict[str, Any], exact: dict[str, Any], theirs32: dict | None) -> None:
    """Outputs and gradients against their float64 values; in float32 an error up to twice their own is allowed.

    The gradients before a LayerNorm are what is left of a cancellation: over two channels (timm's defaults at 16
    channels) a thousandth of what cancels. So their float32 error may also be 1e-5 of the block's largest gradient;
    whose rounding happens to be luckier says nothing. In float64 they are compared like all others.
    """
    largest = max(float(gradient.norm()) for gradient in exact["grad_params"].values())
    dtype = torch.float64 if theirs32 is None else torch.float32

    def close(
        ours: Tensor, wanted: Tensor, their_float32: Callable[[dict], Tensor], scale: Tensor | None = None
    ) -> bool:
        if scale is not None and float(wanted.norm()) <= 1e-6 * float(scale.norm()):  # zero in theory
            return float(ours.norm()) <= (1e-10 if theirs32 is None else 1e-5) * float(scale.norm()) + 1e-12
        limit = 1e-10 if theirs32 is None else max(1e-5, 2 * relative(their_float32(theirs32), wanted))
        return relative(ours, wanted) <= limit

    block = block.to(dtype).train(case["train_mode"])
    x = case["input"].to(dtype).requires_grad_()
    out = block(x)
    out.backward(case["cotangent"].to(dtype))
    assert x.grad is not None
    assert close(out, exact["output"], lambda t: t["output"])
    difference = exact["output"] - case["input"].double()
    assert close(out.detach() - x.detach(), difference, lambda t: t["output"] - case["input"])
    assert close(x.grad, exact["grad_input"], lambda t: t["grad_input"])
    for name, parameter in block.named_parameters():
        wanted = exact["grad_params"][table[name]].flatten()
        weight = exact["grad_params"][table[name.replace("bias", "weight")]]
        assert parameter.grad is not None, name
        if theirs32 is not None and name.endswith(("key.weight", "reduce.weight", "reduce.bias")):
            error = float((parameter.grad.double().flatten() - wanted.double()).norm())
            if error <= 1e-5 * largest:
                continue
        assert close(
            parameter.grad.flatten(), wanted, lambda t, n=name: t["grad_params"][table[n]].flatten(), weight
        ), name
        assert name != "key.bias" or float(parameter.grad) == 0.0


@pytest.mark.parametrize("source", READERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equals_the_stored_outputs_and_gradients(shared, source, dtype):
    cases = torch.load(shared / "fixtures" / "blocks" / f"{source}.pt", weights_only=True)["cases"]
    ran = 0
    for name, case in cases.items():
        if any(case["kwargs"].get(option) for option in NOT_OURS):
            continue
        block, table = filled(source, case["kwargs"], {k: v.double() for k, v in case["state_dict"].items()})
        try:
            compare(block, table, case, case["float64"], case["float32"] if dtype == "float32" else None)
        except AssertionError as error:
            raise AssertionError(f"{source}: {name}: {error}") from error
        ran += 1
    assert ran >= 4


def live_cases() -> list[tuple[str, dict[str, Any]]]:
    context = [
        ("mmcv_context_block", {"in_channels": 24, "ratio": 1 / 4, "pooling_type": pool, "fusion_types": fusion})
        for pool in ("att", "avg")
        for fusion in (["channel_add"], ["channel_mul"], ["channel_add", "channel_mul"])
    ]
    nonlocals = [
        ("mmcv_nonlocal2d", {"in_channels": 12, "reduction": 2, "use_scale": scale, "mode": mode, "sub_sample": sub})
        for mode in ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
        for scale in (True, False)
        for sub in (True, False)
    ]
    other_dims = [
        (f"mmcv_nonlocal{d}d", {"in_channels": 12, "reduction": 2, "use_scale": True, "mode": mode, "sub_sample": sub})
        for d in (1, 3)
        for mode in ("embedded_gaussian", "dot_product")
        for sub in (True, False)
    ]
    timm_context = [
        ("timm_global_context", {"channels": 24, "use_attn": attn, "fuse_add": add, "fuse_scale": scale})
        for attn in (True, False)
        for add, scale in ((False, True), (True, False), (True, True))
    ]
    timm_rest = [
        ("timm_se", {"channels": 32, "rd_ratio": 0.25, "rd_divisor": 1, "bias": bias, "gate_layer": gate})
        for bias in (True, False)
        for gate in ("sigmoid", "hard_sigmoid")
    ] + [
        ("timm_nonlocal_attn", {"in_channels": 16, "use_scale": scale, "rd_ratio": 0.25, "rd_divisor": 1})
        for scale in (True, False)
    ]
    return context + nonlocals + other_dims + timm_context + timm_rest


def theirs(source: str, kwargs: dict[str, Any]) -> nn.Module:
    if source.startswith("mmcv"):
        import mmcv.cnn.bricks as bricks

        cls = {"context_block": "ContextBlock"}.get(source.removeprefix("mmcv_"), source[-10:].title())
        cls = cls if cls == "ContextBlock" else f"NonLocal{source[-2]}d"
        return getattr(bricks, cls)(**kwargs)
    import timm.layers

    cls = {"timm_global_context": "GlobalContext", "timm_se": "SEModule", "timm_nonlocal_attn": "NonLocalAttn"}[source]
    return getattr(timm.layers, cls)(**kwargs)


def run_theirs(block: nn.Module, x: Tensor, cotangent: Tensor, in_place: bool) -> dict[str, Any]:
    x = x.detach().requires_grad_(not in_place)
    out = block(x) if not in_place else block(x).detach()
    if in_place:
        return {"output": out}
    block.zero_grad()
    out.backward(cotangent)
    return {
        "output": out.detach(),
        "grad_input": x.grad,
        "grad_params": {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None},
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("source", "kwargs"), live_cases(), ids=lambda v: v if isinstance(v, str) else None)
def test_equals_the_real_block_side_by_side(source, kwargs, dtype):
    if source.startswith("mmcv"):
        pytest.importorskip("mmcv.cnn.bricks")
    real = theirs(source, kwargs).double().eval()
    for parameter in real.parameters():  # the last layers start at zero: with them at zero every error is invisible
        nn.init.normal_(parameter, std=0.4)
    for name, buffer in real.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    block, table = filled("mmcv_nonlocal2d" if "mmcv_nonlocal" in source else source, kwargs, real.state_dict())
    channels = kwargs.get("channels") or kwargs["in_channels"]
    spatial = {"1": (13,), "3": (3, 5, 4)}.get(source[-2], (6, 7))
    x = torch.randn(2, channels, *spatial, dtype=torch.float64)
    cotangent = torch.randn_like(x)
    in_place = kwargs.get("mode") == "concatenation"  # mmcv divides in place there, which its backward refuses
    with torch.set_grad_enabled(not in_place):
        exact = run_theirs(real, x, cotangent, in_place)
        theirs32 = run_theirs(real.float(), x.float(), cotangent.float(), in_place)
    if in_place:
        tolerance = 1e-10 if dtype == "float64" else 1e-5
        block = block.to(getattr(torch, dtype)).eval()
        assert relative(block(x.to(getattr(torch, dtype))).detach() - x, exact["output"] - x) <= tolerance
        return
    case = {"input": x, "cotangent": cotangent, "train_mode": False}
    compare(block, table, case, exact, theirs32 if dtype == "float32" else None)
