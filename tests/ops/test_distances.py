"""Distances of vectors and maps: closed forms and estimates against loops over all pairs in float64."""

import math

import pytest
import torch

from gcnet.ops import distances
from gcnet.ops.distances.reference import entropy_reference


def _maps(P, Q, sharpness=3.0, seed=0):
    logits = torch.randn(P, Q, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (sharpness * logits).softmax(dim=1)


def _vectors(kind, P, C):
    v = torch.randn(P, C, dtype=torch.float64)
    if kind == "nearly equal":
        return 1 + 1e-4 * v
    if kind == "some zero":
        v[::3] = 0
    return v


@pytest.mark.parametrize("kind", ["random", "nearly equal", "some zero"])
@pytest.mark.parametrize(("P", "C"), [(1, 1), (1, 5), (2, 3), (13, 7), (30, 64)])
def test_the_closed_form_of_the_cosine_average_equals_the_loop_over_all_pairs(kind, P, C):
    v = _vectors(kind, P, C)
    expected = distances.average_cosine_distance_reference(v)
    assert distances.average_cosine_distance(v).item() == pytest.approx(expected, abs=1e-10)
    lengths = torch.tensor([1e-200, 1e200, 1.0], dtype=torch.float64)[torch.arange(P) % 3]  # their squares overflow
    assert distances.average_cosine_distance(v * lengths[:, None]).item() == pytest.approx(expected, abs=1e-10)


def test_sets_of_vectors_are_taken_one_by_one_in_any_dtype():
    v = torch.randn(2, 3, 7, 4).bfloat16()
    found = distances.average_cosine_distance(v)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    assert found[1, 2].item() == pytest.approx(distances.average_cosine_distance_reference(v[1, 2]), abs=1e-10)


def test_equal_vectors_are_at_0_opposite_halves_and_zero_vectors_at_one_half():
    v = torch.randn(1, 5).expand(6, 5)
    assert distances.average_cosine_distance(v).item() == pytest.approx(0, abs=1e-15)
    assert distances.average_cosine_distance(torch.cat([v, -v])).item() == pytest.approx(0.5)
    assert distances.average_cosine_distance(torch.zeros(3, 2)).item() == 0.5


@pytest.mark.parametrize(("P", "Q"), [(1, 1), (1, 4), (2, 1), (2, 2), (7, 5), (11, 29)])
@pytest.mark.parametrize("sharpness", [0.01, 3.0, 400.0])
def test_the_exact_divergence_equals_the_loop_over_all_pairs(P, Q, sharpness):
    maps = _maps(P, Q, sharpness)
    found = distances.average_jensen_shannon(maps)
    assert found.value.item() == pytest.approx(distances.average_jensen_shannon_reference(maps), abs=1e-10)
    assert found.error.item() == 0


def test_one_hot_maps_are_ln_2_apart_and_zeros_are_no_nan():
    assert distances.average_jensen_shannon(torch.eye(5)).value.item() == pytest.approx(math.log(2) * 4 / 5, abs=1e-12)


def test_blocks_of_pairs_and_of_sets_do_not_change_the_divergence(monkeypatch):
    maps = torch.stack([_maps(9, 6, seed=s) for s in range(5)]).reshape(5, 1, 9, 6)
    expected = [distances.average_jensen_shannon_reference(one[0]) for one in maps]
    for numbers in (1, 20, 120, 10**6):
        monkeypatch.setattr("gcnet.ops.distances.divergence._AT_ONCE", numbers)
        found = distances.average_jensen_shannon(maps).value
        assert found.shape == (5, 1)
        assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-10)


def test_the_estimate_is_unbiased_and_its_error_covers_the_exact_value():
    maps = torch.stack([_maps(30, 20, 1.0), _maps(30, 20, 6.0, seed=1)])
    maps[1, :25] = maps[1, 0]  # most pairs at 0: a skewed distribution
    exact = distances.average_jensen_shannon(maps).value
    generator = torch.Generator().manual_seed(1)
    runs, pairs = 600, 150
    found = [
        distances.average_jensen_shannon(maps, exact_up_to=29, pairs=pairs, generator=generator) for _ in range(runs)
    ]
    values, errors = torch.stack([f.value for f in found]), torch.stack([f.error for f in found])
    bias = (values.mean(dim=0) - exact) / (values.std(dim=0) / math.sqrt(runs))
    assert bias.abs().max() < 3.5
    covered = ((values - exact).abs() <= 1.96 * errors).double().mean(dim=0)
    assert (covered > 0.92).all()
    assert (covered < 0.975).all()


def test_above_the_limit_pairs_are_drawn_and_the_same_seed_draws_the_same():
    maps = _maps(distances.EXACT_UP_TO + 1, 4)
    one, two = (
        distances.average_jensen_shannon(maps, pairs=50, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert one.error > 0
    assert one.value == two.value


def test_a_single_map_drawn_from_is_at_0():
    found = distances.average_jensen_shannon(_maps(1, 4), exact_up_to=0)
    assert (found.value, found.error) == (0, 0)


def test_entropy_and_effective_positions():
    maps = _maps(4, 9, 2.0)
    assert distances.entropy(maps).tolist() == pytest.approx([entropy_reference(p) for p in maps], abs=1e-12)
    assert distances.effective_positions(torch.full((2, 7), 1 / 7)).tolist() == pytest.approx([7, 7], rel=1e-6)
    assert distances.effective_positions(torch.eye(3)).tolist() == [1, 1, 1]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"v has shape \(3,\); expected \(\.\.\., P, C\)"):
        distances.average_cosine_distance(torch.zeros(3))
    with pytest.raises(ValueError, match=r"maps has shape \(0, 3\); expected \(\.\.\., P, Q\)"):
        distances.average_jensen_shannon(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="pairs=1, count=5: at least 2 pairs"):
        distances.sampled_jensen_shannon(lambda i: torch.ones(1, len(i), 1), 5, pairs=1)
