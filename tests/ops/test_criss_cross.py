"""Criss-cross attention against loops over positions, in values and gradients."""

import pytest
import torch
from torch import Tensor

from gcnet.ops.criss_cross_attention import criss_cross, criss_cross_reference


def by_loops(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Equations 1 and 2 of arXiv 1811.11721, position by position: its row, then its column without itself."""
    B, _, H, W = query.shape
    y = torch.zeros_like(value)
    for b in range(B):
        for h in range(H):
            for w in range(W):
                cross = [(h, j) for j in range(W)] + [(i, w) for i in range(H) if i != h]
                assert len(cross) == H + W - 1
                weights = torch.stack([query[b, :, h, w] @ key[b, :, i, j] for i, j in cross]).exp()
                y[b, :, h, w] = sum(
                    a * value[b, :, i, j] for a, (i, j) in zip(weights / weights.sum(), cross, strict=True)
                )
    return y


def maps(B=2, D=3, V=5, H=4, W=3, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.randn(B, c, H, W, dtype=dtype) for c in (D, D, V))  # type: ignore[return-value]


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2), (4, 3), (7, 5)])
@pytest.mark.parametrize("op", [criss_cross, criss_cross_reference])
def test_values_are_those_of_the_paper(op, size):
    inputs = maps(H=size[0], W=size[1])
    assert relative(op(*inputs), by_loops(*inputs)) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gradients_equal_those_of_the_reference(dtype, tolerance):
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for inputs in [maps(H=7, W=5, dtype=dtype)] * 2)
    seed = torch.randn(2, 5, 7, 5, dtype=dtype)
    for mine, reference in zip(
        torch.autograd.grad(criss_cross(*ours), ours, seed),
        torch.autograd.grad(criss_cross_reference(*theirs), theirs, seed),
        strict=True,
    ):
        assert relative(mine, reference) < tolerance


def test_gradcheck():
    assert torch.autograd.gradcheck(criss_cross, [t.requires_grad_() for t in maps(B=1, D=2, V=2, H=3, W=2)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_the_reference(dtype):
    inputs = [t.to(dtype) for t in maps(H=7, W=5)]
    exact = criss_cross_reference(*(t.double() for t in inputs))
    y = criss_cross(*inputs)
    assert y.dtype == dtype
    assert relative(y, exact) <= 2 * relative(criss_cross_reference(*inputs), exact) + 1e-6


def test_autocast_does_not_lower_the_precision():
    inputs = maps(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = criss_cross(*inputs)
    torch.testing.assert_close(y, criss_cross(*inputs), rtol=0, atol=0)


def test_extreme_logits_pick_one_position():
    query, key, value = maps(D=1)
    key = torch.zeros_like(key)
    key[:, :, 1, 2] = 1e4
    y = criss_cross(torch.ones_like(query), key, value)
    picked = value[:, :, 1, 2]
    torch.testing.assert_close(y[:, :, 1, :], picked[:, :, None].expand(-1, -1, 3))  # its row
    torch.testing.assert_close(y[:, :, :, 2], picked[:, :, None].expand(-1, -1, 4))  # its column
    assert torch.isfinite(criss_cross(query, -key, value)).all()


def test_positions_off_the_cross_have_no_influence():
    query, key, value = maps()
    y = criss_cross(query, key, value)
    key[:, :, 2, 0], value[:, :, 2, 0] = 50.0, 50.0
    changed = (criss_cross(query, key, value) != y).any(dim=1).all(dim=0)
    expected = torch.zeros(4, 3, dtype=torch.bool)
    expected[2], expected[:, 0] = True, True
    assert torch.equal(changed, expected)


def test_empty_batch_and_strides():
    assert criss_cross(*maps(B=0)).shape == (0, 5, 4, 3)
    inputs = maps()
    strided = [t.to(memory_format=torch.channels_last) for t in inputs]
    torch.testing.assert_close(criss_cross(*strided), criss_cross(*inputs))
    flipped = [t.transpose(2, 3) for t in inputs]
    torch.testing.assert_close(criss_cross(*flipped).transpose(2, 3), criss_cross(*inputs))


def test_no_quadratic_matrix_is_built():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.numel = max(self.numel, out.numel())
            return out

    inputs = maps(B=1, D=2, V=2, H=31, W=29, dtype=torch.float32)
    with Largest() as seen:
        criss_cross(*inputs)
    assert 0 < seen.numel <= 31 * 29 * (31 + 29)
    with Largest() as seen:
        criss_cross_reference(*inputs)
    assert seen.numel == (31 * 29) ** 2


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 4), (2, 3, 4), (2, 5, 4)), r"query has shape \(2, 3, 4\); expected \(B, C, H, W\)"),
        (((2, 3, 4, 5), (2, 3, 5, 4), (2, 5, 4, 5)), r"key has shape \(2, 3, 5, 4\); expected \(2, 3, 4, 5\)"),
        (((2, 3, 4, 5), (2, 3, 4, 5), (2, 5, 20)), r"value has shape \(2, 5, 20\); expected \(B, C, H, W\)"),
        (((2, 3, 4, 5), (2, 3, 4, 5), (1, 5, 4, 5)), r"value has shape \(1, 5, 4, 5\); expected \(2, V, 4, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        criss_cross(*(torch.zeros(s) for s in shapes))
