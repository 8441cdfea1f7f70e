"""Attention with relative positions against loops over positions, in values and gradients."""

import pytest
import torch
from torch import Tensor

from gcnet.ops.relative_attention import relative_attend, relative_attend_reference


def by_loops(query, key, value, *, position_query, rows, columns) -> Tensor:
    B, N, I, J, V = value.shape
    H, W = rows.shape[1], columns.shape[1]
    y = torch.zeros(B, N, H, W, V, dtype=value.dtype)
    for b in range(B):
        for n in range(N):
            for h in range(H):
                for w in range(W):
                    p = position_query.expand(B, N, H, W, -1)[b, n, h, w]
                    total, weighted = 0, 0
                    for i in range(I):
                        for j in range(J):
                            logit = p @ (rows[n, h, i] + columns[n, w, j])
                            if query is not None:
                                logit = logit + query.expand(B, N, H, W, -1)[b, n, h, w] @ key[b, n, i, j]
                            total = total + logit.exp()
                            weighted = weighted + logit.exp() * value[b, n, i, j]
                    y[b, n, h, w] = weighted / total
    return y


def tensors(B=2, N=2, size=(4, 3), keys=(2, 2), D=3, E=4, V=5, dtype=torch.float64, content=True, constant=False):
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype)

    queries = (1, N, 1, 1) if constant else (B, N, *size)
    inputs = {"query": draw(*queries, D), "key": draw(B, N, *keys, D)} if content else {"query": None, "key": None}
    inputs["value"] = draw(B, N, *keys, V)
    inputs["position_query"] = draw(*queries, E)
    inputs["rows"], inputs["columns"] = draw(N, size[0], keys[0], E), draw(N, size[1], keys[1], E)
    return inputs


def call(op, inputs: dict[str, Tensor | None]) -> Tensor:
    given = dict(inputs)
    return op(given.pop("query"), given.pop("key"), given.pop("value"), **given)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize(("size", "keys"), [((1, 1), (1, 1)), ((4, 3), (2, 2)), ((3, 5), (3, 1))])
@pytest.mark.parametrize("op", [relative_attend, relative_attend_reference])
def test_values_are_those_of_the_definition(op, size, keys, content, constant):
    inputs = tensors(size=size, keys=keys, content=content, constant=constant)
    assert relative(call(op, inputs), call(by_loops, inputs)) < 1e-12


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_those_of_the_reference(dtype, tolerance, constant):
    inputs = tensors(size=(7, 5), keys=(4, 3), dtype=dtype, constant=constant)
    seed = torch.randn(2, 2, 7, 5, 5, dtype=dtype)
    gradients = []
    for op in (relative_attend, relative_attend_reference):
        leaves = {name: t.clone().requires_grad_() for name, t in inputs.items()}
        gradients.append(torch.autograd.grad(call(op, leaves), list(leaves.values()), seed))
    for name, mine, theirs in zip(inputs, *gradients, strict=True):
        assert relative(mine, theirs) < tolerance, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_the_reference(dtype):
    inputs = {name: t.to(dtype) for name, t in tensors(size=(7, 5), keys=(4, 3)).items()}
    exact = call(relative_attend_reference, {name: t.double() for name, t in inputs.items()})
    y = call(relative_attend, inputs)
    assert y.dtype == dtype
    assert relative(y, exact) <= 2 * relative(call(relative_attend_reference, inputs), exact) + 1e-6


def test_autocast_does_not_lower_the_precision():
    inputs = tensors(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = call(relative_attend, inputs)
    assert relative(y, call(relative_attend, inputs)) < 1e-6


def test_extreme_logits_pick_one_key():
    inputs = tensors(D=1)
    inputs["query"], inputs["key"] = torch.ones_like(inputs["query"]), torch.zeros_like(inputs["key"])
    inputs["key"][:, :, 1, 0] = 1e4
    picked = inputs["value"][:, :, 1, 0]
    torch.testing.assert_close(call(relative_attend, inputs), picked[:, :, None, None].expand(-1, -1, 4, 3, -1))


def test_an_empty_batch_and_strides():
    assert call(relative_attend, tensors(B=0)).shape == (0, 2, 4, 3, 5)
    inputs = tensors()
    strided = {name: t.transpose(-1, -2).contiguous().transpose(-1, -2) for name, t in inputs.items()}
    torch.testing.assert_close(call(relative_attend, strided), call(relative_attend, inputs))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("value", (2, 2, 4, 5), r"value has shape \(2, 2, 4, 5\); expected \(B, N, I, J, V\) with at least one key"),
        ("value", (2, 2, 0, 2, 5), "with at least one key"),
        ("rows", (2, 4, 4), r"rows and columns must be \(N, H, I, E\) and \(N, W, J, E\); got \(2, 4, 4\)"),
        ("rows", (2, 4, 3, 4), r"rows has shape \(2, 4, 3, 4\); expected \(2, 4, 2, 4\)"),
        ("columns", (2, 3, 2, 5), r"columns has shape \(2, 3, 2, 5\); expected \(2, 3, 2, 4\)"),
        ("position_query", (2, 2, 4, 1, 5), r"position_query has shape .* expected \(2, 2, 4, 3, 4\)"),
        ("key", (2, 2, 4, 3), r"key has shape \(2, 2, 4, 3\); expected \(2, 2, 2, 2, 3\)"),
        ("query", (2, 2, 3, 3, 3), r"query has shape \(2, 2, 3, 3, 3\); expected \(2, 2, 4, 3, 3\)"),
        ("query", None, "query and key go together: give both, or None for both"),
    ],
)
def test_tensors_that_do_not_fit_are_named(name, shape, message):
    inputs = tensors() | {name: None if shape is None else torch.zeros(shape)}
    with pytest.raises(ValueError, match=message):
        call(relative_attend, inputs)
