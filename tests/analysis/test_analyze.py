"""`analyze`: the figures against their definitions, the verdicts, and what can be given to it."""

import math

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import gcnet
from gcnet.analysis.rows import Rows
from gcnet.analysis.verdict import DEPENDENT, INDEPENDENT, THRESHOLDS, UNDECIDED, verdict
from gcnet.blocks import CATALOGUE, DisentangledNonLocal, NonLocal
from gcnet.ops.distances import average_cosine_distance_reference as cosine
from gcnet.ops.distances import average_jensen_shannon_reference as jensen_shannon
from gcnet.ops.distances import entropy

FORMS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def _randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def _attended(block, x):
    """(B, P, Q) maps by the definition."""
    theta, phi, _ = block.embed(x)
    return gcnet.ops.pairwise_weights(
        theta, phi, pairwise=block.pairwise, scale=block.scale, concat_weight=block.concat_weight
    ).detach()


@pytest.mark.parametrize("subsample", [False, "after", "before"])
@pytest.mark.parametrize("pairwise", FORMS)
def test_the_figures_of_a_non_local_block_are_those_of_the_definition(pairwise, subsample):
    block = _randomised(NonLocal(6, pairwise=pairwise, subsample=subsample, scale=0.3, norm="batch")).double().eval()
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    row = gcnet.analyze(block, x).table[0]
    maps, context = _attended(block, x), block.context(x).flatten(2).transpose(1, 2).detach()
    expected = {
        "input_cos": [cosine(v.flatten(1).T) for v in x],
        "output_cos": [cosine(v) for v in context],
        "att_cos": [cosine(a) for a in maps],
    }
    if "gaussian" in pairwise:
        expected["att_jsd"] = [jensen_shannon(a) for a in maps]
        expected["entropy"] = [entropy(a).mean().item() for a in maps]
    for name, values in expected.items():
        mean, half = gcnet.analysis.intervals.mean_interval(values)[:2]
        assert row[name] == pytest.approx(mean, abs=1e-10), name
        most = math.inf if name == "entropy" else math.log(2) if name == "att_jsd" else 0.5
        ends = (max(mean - half, 0), min(mean + half, most))
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(ends, abs=1e-9)
    spread = [1 - a.mean(0).square().sum() / a.square().sum(1).mean() for a in maps]
    assert row["att_spread"] == pytest.approx(torch.stack(spread).mean().item(), abs=1e-10)
    assert math.isnan(row["att_jsd"]) == ("gaussian" not in pairwise)
    assert (row["block"], row["kind"], row["images"]) == ("", "NonLocal", 3)
    assert (row["positions"], row["keys"]) == (20, 4 if subsample else 20)


@pytest.mark.parametrize("pairwise", FORMS)
def test_the_constant_part_of_the_output_is_what_no_input_changes(pairwise):
    """It is found here by its meaning: what is left of the output when the values no longer see x."""
    block = _randomised(NonLocal(6, pairwise=pairwise, norm="batch")).double().eval()
    blind = NonLocal(6, pairwise=pairwise, norm="batch").double().eval()
    blind.load_state_dict(block.state_dict())
    nn.init.zeros_(blind.g.weight)
    if "gaussian" not in pairwise:  # there even the bias of the values passes through maps that depend on x
        nn.init.zeros_(blind.g.bias)
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64)
    varying = (block.context(x) - blind.context(x)).flatten(2)[0].T.detach()
    assert gcnet.analyze(block, x).table[0]["output_cos_no_bias"] == pytest.approx(cosine(varying), abs=1e-10)


def test_logits_are_split_into_key_only_and_whitened_pairwise_parts():
    block = _randomised(NonLocal(6)).double()
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    q, k, _ = (t[0] for t in block.embed(x))
    pairwise = (q - q.mean(0)) @ (k - k.mean(0)).T  # arXiv 2006.06668, eq. 5
    unary = (q.mean(0) @ k.T) - (q.mean(0) @ k.T).mean()
    expected = unary.square().mean() / (unary.square().mean() + pairwise.square().mean())
    row = gcnet.analyze(block, x).table[0]
    assert row["unary_share"] == pytest.approx(expected.item(), abs=1e-10)
    assert row["query_within"] == pytest.approx((q - q.mean(0)).square().sum(1).mean().item())
    maps = _attended(block, x)[0]
    assert row["information"] == pytest.approx((entropy(maps.mean(0)) - entropy(maps).mean()).item(), abs=1e-10)
    assert row["effective_positions"] == pytest.approx(entropy(maps).exp().mean().item())


def test_queries_constant_inside_images_but_not_between_them_are_told_apart():
    block = _randomised(NonLocal(6)).double()
    x = torch.randn(5, 6, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 4)
    row = gcnet.analyze(block, x).table[0]
    means = block.embed(x)[0].mean(1)
    assert row["query_within"] == pytest.approx(0, abs=1e-20)
    assert row["query_between"] == pytest.approx(means.var(0).sum().item())


@pytest.mark.parametrize("pairwise", FORMS[1:])
@pytest.mark.parametrize("images", [1, 4])
def test_a_block_with_no_query_is_query_independent(pairwise, images):
    block = _randomised(NonLocal(8, pairwise=pairwise))
    if pairwise == "concatenation":
        with torch.no_grad():
            block.concat_weight[:4] = 0
    else:
        nn.init.zeros_(block.theta.weight)
    found = gcnet.analyze(block, torch.randn(images, 8, 5, 5))
    assert found.verdicts == {"": INDEPENDENT}
    assert found.verdicts[""].numbers["dependence"] < 1e-9


def test_maps_that_are_all_zero_are_query_independent_though_zero_vectors_are_at_one_half():
    block = NonLocal(8, pairwise="dot_product")
    nn.init.zeros_(block.theta.weight)
    found = gcnet.analyze(block, torch.randn(3, 8, 5, 5))
    assert found.table[0]["att_cos"] == 0.5
    assert found.verdicts[""] == INDEPENDENT


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("pairwise", FORMS[:3])
def test_a_block_whose_maps_are_one_hot_on_the_query_itself_is_query_dependent(pairwise, images):
    block = NonLocal(16, pairwise=pairwise, reduction=1, scale=200.0)
    for layer in (block.theta, block.phi):
        if layer is not None:
            nn.init.eye_(layer.weight)
    x = torch.eye(16).view(1, 16, 4, 4).repeat(images, 1, 1, 1)
    found = gcnet.analyze(block, x)
    assert found.verdicts[""] == DEPENDENT
    assert found.table[0]["att_cos"] == pytest.approx((1 - 1 / 16) / 2)
    if pairwise != "dot_product":
        assert found.table[0]["att_jsd"] == pytest.approx(math.log(2) * 15 / 16)
        assert found.table[0]["effective_positions"] == pytest.approx(1)


def test_one_query_dependent_head_keeps_the_block_and_a_wide_interval_is_undecided():
    assert verdict({0: (0.01, 0.0, 0.02), 1: (0.4, 0.35, 0.45)}, 5).numbers["head"] == 1
    assert verdict({0: (0.01, 0.0, 0.02), 1: (0.4, 0.35, 0.45)}, 5) == DEPENDENT
    assert verdict({0: (0.05, 0.0, 0.17)}, 5) == UNDECIDED
    assert verdict({0: (0.25, 0.15, 0.35)}, 5) == UNDECIDED
    assert verdict({0: (0.165, 0.16, 0.17)}, 5) == UNDECIDED
    assert verdict({0: (0.05, 0.04, 0.06)}, 5) == INDEPENDENT
    assert verdict({0: (0.05, 0.0, 0.5)}, 1) == INDEPENDENT
    assert 0 < THRESHOLDS["independent_below"] < THRESHOLDS["dependent_above"] < 0.5


@pytest.mark.parametrize("name", ["gc", "snl", "se", "context"])
def test_a_block_with_one_map_for_all_is_query_independent(name):
    block = _randomised(gcnet.create_block(name, 16)).double()
    x = torch.randn(3, 16, 4, 5, dtype=torch.float64)
    found = gcnet.analyze(block, x)
    row = found.table[0]
    assert found.verdicts[""] == INDEPENDENT
    assert (row["att_cos"], row["att_jsd"]) == pytest.approx((0, 0), abs=1e-15)
    assert (row["positions"], row["keys"]) == (20, 20)
    assert row["output_cos"] == pytest.approx(0, abs=1e-12)
    alpha = torch.full((3, 20), 1 / 20) if block.key is None else block.key(x.flatten(2).mT)[..., 0].softmax(1)
    assert row["entropy"] == pytest.approx(entropy(alpha.detach()).mean().item())


def test_the_maps_of_a_disentangled_block_are_its_two_parts_together():
    block = _randomised(DisentangledNonLocal(8, temperature=1.0)).double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    v = x.flatten(2).mT
    q, k = (t - t.mean(1, keepdim=True) for t in (block.query(v), block.key(v)))
    maps = ((q @ k.mT * block.scale).softmax(2) + block.mask(v)[..., 0].softmax(1)[:, None]) / 2
    found = gcnet.analyze(block, x).table[0]
    assert found["att_cos"] == pytest.approx(cosine(maps[0].detach()), abs=1e-10)
    assert found["att_jsd"] == pytest.approx(jensen_shannon(maps[0].detach()), abs=1e-10)
    varying = block.context(x)[0].flatten(1).T.detach() - block.out(2 * block.value.bias).detach()
    assert found["output_cos_no_bias"] == pytest.approx(cosine(varying), abs=1e-10)


@pytest.mark.parametrize("shape", [(2, 6, 11), (2, 6, 2, 3, 4)])
def test_maps_of_one_and_three_dimensions(shape):
    block = _randomised(NonLocal(6)).double()
    x = torch.randn(shape, dtype=torch.float64)
    assert gcnet.analyze(block, x).table[0]["att_cos"] == pytest.approx(
        sum(cosine(a) for a in _attended(block, x)) / 2, abs=1e-10
    )


def test_other_scales_of_the_logits_are_what_the_block_with_that_scale_has():
    block, x = _randomised(NonLocal(6, scale=0.5)).double(), torch.randn(2, 6, 4, 4, dtype=torch.float64)
    rows = gcnet.analyze(block, x).scales
    assert [row["factor"] for row in rows] == [0.25, 0.5, 1, 2, 4]
    for row in rows:
        block.scale = 0.5 * row["factor"]
        direct = gcnet.analyze(block, x).table[0]
        for name in ("att_cos", "att_jsd", "entropy"):
            assert row[name] == pytest.approx(direct[name], abs=1e-10)


def test_estimates_at_other_scales_from_some_queries_are_unbiased(monkeypatch):
    monkeypatch.setattr("gcnet.analysis.figures._SWEEP", 5)
    block, x = _randomised(NonLocal(6)).double(), torch.randn(1, 6, 3, 4, dtype=torch.float64)
    rows = {row["factor"]: row for row in gcnet.analyze(block, x.expand(600, -1, -1, -1)).scales}
    block.scale = 2.0
    direct = gcnet.analyze(block, x).table[0]
    for name in ("att_cos", "att_jsd", "entropy"):
        margin = 2 * (rows[2.0][f"{name}_high"] - rows[2.0][name])
        assert 0 < margin < 0.1 * direct[name]
        assert rows[2.0][name] == pytest.approx(direct[name], abs=margin)


def test_more_than_1024_queries_are_streamed_and_their_divergence_is_estimated(monkeypatch):
    block, x = _randomised(NonLocal(6, scale=0.2)).double(), torch.randn(4, 6, 5, 7, dtype=torch.float64)
    exact = gcnet.analyze(block, x).table[0]
    monkeypatch.setattr("gcnet.analysis.figures.EXACT_UP_TO", 34)
    monkeypatch.setattr("gcnet.analysis.figures._AT_ONCE", 4 * 35)
    streamed = gcnet.analyze(block, x).table[0]
    assert 0 < streamed["att_jsd_error"] < 0.1 * exact["att_jsd"]
    assert abs(streamed["att_jsd"] - exact["att_jsd"]) < 4 * streamed["att_jsd_error"]
    for name in ("att_cos", "att_spread", "entropy", "information", "unary_share"):
        assert streamed[name] == pytest.approx(exact[name], abs=1e-12)


def test_every_block_of_a_model_has_a_row_and_the_model_stays_as_it_was():
    model = gcnet.insert(torchvision.models.resnet18(num_classes=4), "gc", stages=["c3"])
    model = _randomised(gcnet.insert(model, "nl", stages=["c4"], where="last")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gcnet.analyze(model, torch.randn(3, 3, 64, 64))
    assert [row["block"] for row in found.table] == list(gcnet.inserted(model))
    assert {row["kind"] for row in found.table} == {"GlobalContext", "NonLocal"}
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, NonLocal))
    assert "GlobalContext" in str(found)
    assert "layer2.0" in str(found)


def test_batches_labels_and_predictions():
    block = _randomised(NonLocal(4)).double()
    x, labels = torch.randn(7, 4, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, -1, 0])
    whole = gcnet.analyze(block, x)
    parts = gcnet.analyze(block, [(x[:3], labels[:3]), (x[3:], labels[3:])])
    assert {k: v for k, v in parts.table[0].items() if not isinstance(v, str)} == pytest.approx(
        {k: v for k, v in whole.table[0].items() if not isinstance(v, str)}, rel=1e-10
    )
    assert whole.per_class == []
    assert [(row["class"], row["images"]) for row in parts.per_class] == [("0", 3), ("1", 3)]
    assert parts.per_class[0]["att_cos"] == pytest.approx(gcnet.analyze(block, x[labels == 0]).table[0]["att_cos"])
    model = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    predicted = model(x).argmax(1)
    rows = gcnet.analyze(model, iter([x[:4], x[4:]])).per_class
    assert {row["class"]: row["images"] for row in rows} == {
        str(c): int((predicted == c).sum()) for c in predicted.unique().tolist()
    }


def test_files_go_through_the_transform_and_those_that_are_broken_are_noted(tmp_path):
    for index in range(3):
        Image.new("RGB", (10 + 6 * (index == 2), 10), (80 * index, 10, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    block = _randomised(NonLocal(3, reduction=1))
    found = gcnet.analyze(block, [tmp_path], transform=torchvision.transforms.ToTensor(), keep=2)
    assert found.images == 3
    assert found.unreadable == {str(tmp_path / "broken.png"): "is empty (0 bytes)"}
    assert [image.name for image in found.kept] == [str(tmp_path / f"{index}.png") for index in range(2)]
    with pytest.raises(ValueError, match="transform=None, and this model does not say how a photograph"):
        gcnet.analyze(block, str(tmp_path / "0.png"))
    with pytest.raises(ValueError, match=r"holds no image that can be read; the first: .*broken.png: is empty"):
        gcnet.analyze(block, tmp_path / "broken.png", transform=torchvision.transforms.ToTensor())


def test_what_cannot_be_analysed_is_said():
    block = NonLocal(4)
    with pytest.raises(ValueError, match="this Conv2d holds no attention that analyze can read"):
        gcnet.analyze(nn.Conv2d(3, 3, 1), torch.randn(1, 3, 4, 4))
    with pytest.raises(ValueError, match="images holds no image"):
        gcnet.analyze(block, [])
    with pytest.raises(TypeError, match="images is a int; expected a tensor"):
        gcnet.analyze(block, 3)
    with pytest.raises(TypeError, match="images holds a dict; expected tensors"):
        gcnet.analyze(block, [{"image": 1}])
    with pytest.raises(ValueError, match=r"images has dtype torch\.uint8"):
        gcnet.analyze(block, torch.zeros(1, 4, 3, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="keep=13; use a whole number from 0 to 12"):
        gcnet.analyze(block, torch.zeros(1, 4, 3, 3), keep=13)


def test_a_block_that_is_not_called_is_said_to_be_so():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = NonLocal(4), NonLocal(4)

        def forward(self, x):
            return self.used(x)

    found = gcnet.analyze(Half(), torch.randn(2, 4, 3, 3))
    assert [row["block"] for row in found.table] == ["used"]
    assert found.skipped == {"unused": "it was not called"}


def test_under_autocast_the_figures_are_float64_of_what_the_block_computes():
    block, x = _randomised(NonLocal(16)), torch.randn(4, 16, 6, 6)
    exact = gcnet.analyze(block, x).table[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = gcnet.analyze(block, x).table[0]
    assert half["att_cos"] != exact["att_cos"]
    assert half["att_cos"] == pytest.approx(exact["att_cos"], rel=0.05)
    assert half["att_jsd"] == pytest.approx(exact["att_jsd"], rel=0.05)
    assert gcnet.analyze(block.bfloat16(), x).table[0]["att_cos"] == pytest.approx(exact["att_cos"], rel=0.05)


def test_images_that_overflow_are_left_out_of_the_averages():
    block, x = _randomised(NonLocal(4)), torch.randn(3, 4, 3, 3)
    x[1] = math.inf
    row = gcnet.analyze(block, x).table[0]
    assert row["images"] == 2
    assert row["att_cos"] == pytest.approx(gcnet.analyze(block, x[[0, 2]]).table[0]["att_cos"])


def test_the_state_does_not_grow_with_the_images():
    rows = Rows(["a"], torch.device("cpu"))

    def enter(times):
        for _ in range(times):
            rows.add("a", {"att_cos": torch.rand(4, 2), "entropy": torch.rand(4, 2), "query_mean": torch.rand(4, 6)})
            rows.enter(torch.tensor([0, 1, 2, 0]))
        return sum(t.numel() for t in rows.moments.rows)

    assert enter(2) == enter(200)
    assert rows.results().row("a")["images"] == 4 * 202


@pytest.mark.parametrize("name", ["timm/NonLocalAttn", "dual", "criss_cross"])
def test_other_attention_is_read_through_ours_or_named(name):
    if name.startswith("timm"):
        block = _randomised(timm.layers.NonLocalAttn(16)).eval()
        x = torch.randn(2, 16, 4, 4)
        found = gcnet.analyze(nn.Sequential(nn.Conv2d(16, 16, 1), block), x)
        ours = gcnet.analyze(gcnet.accelerate(nn.Sequential(nn.Conv2d(16, 16, 1), block)), x)
        assert found.table[0]["kind"] == "NonLocalAttn"
        assert ours.table[0]["kind"] == "NonLocal"
        assert found.table[0]["images"] == 2
    else:
        block = CATALOGUE[name].build(16)
        with pytest.raises(ValueError, match="holds no attention that analyze can read"):
            gcnet.analyze(block, torch.randn(2, 16, 4, 4))
