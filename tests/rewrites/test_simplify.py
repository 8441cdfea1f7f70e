"""simplify: exact where the query is constant, refused where it is not, measured on images that did not fit."""

import copy
import math
import pickle
import re

import pytest
import timm.layers
import torch
from torch import nn
from torch.nn.utils import parametrizations

import gcnet
from gcnet.blocks import ContextBlock, CrissCross, DisentangledNonLocal, DualAttention, NonLocal
from gcnet.ops.nonlocal_attention import pairwise_weights
from gcnet.rewrites import RewriteError
from gcnet.rewrites.simplification.apply import simplify
from gcnet.rewrites.simplification.calibration import divide
from gcnet.rewrites.simplification.decisions import Decisions
from gcnet.rewrites.simplification.one_map import OneMapContext
from gcnet.surgery import record

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def awake(block, std=0.3):
    """Nothing at zero, norms with statistics of their own."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=std)
    if block.norm is not None:
        nn.init.uniform_(block.norm.running_var, 0.5, 1.5)
        nn.init.normal_(block.norm.running_mean)
    return block


def no_query(block):
    """A block whose query is a constant vector, not zero, for every position of every image."""
    nn.init.zeros_(block.theta.weight)
    return block


def image_queries(block):
    """Queries that depend on channels 0 and 1 alone."""
    with torch.no_grad():
        block.theta.weight[:, 2:] = 0
    return block


def images_with_constant_channels(count=16, channels=8):
    """Channels 0 and 1 are constant inside an image and differ between images."""
    x = torch.randn(count, channels, 5, 6, dtype=torch.float64)
    x[:, :2] = 2 * torch.randn(count, 2, 1, 1, dtype=torch.float64)
    return x


def needs_its_query(channels=8):
    """Every position attends to itself: a Gaussian block with large logits."""
    block = awake(NonLocal(channels, pairwise="gaussian", scale=100.0))
    nn.init.zeros_(block.g.bias)
    return block


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("subsample", [False, "before"])
@pytest.mark.parametrize("pairwise", PAIRWISE[1:])
def test_constant_queries_are_replaced_exactly(pairwise, subsample, norm):
    block = no_query(awake(NonLocal(8, pairwise=pairwise, subsample=subsample, norm=norm, scale=0.7).double())).eval()
    x = torch.randn(8, 8, 5, 6, dtype=torch.float64)
    model = simplify(nn.Sequential(block), [x], max_error=1e-10)
    unseen = torch.randn(3, 8, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(model(unseen), block(unseen), rtol=1e-10, atol=1e-10)
    (entry,) = model.report.blocks
    assert entry.replaced
    assert entry.form == "shared"
    plain = pairwise == "embedded_gaussian" and not subsample
    assert type(model[0]) is (ContextBlock if plain else OneMapContext)
    assert model[0].add.reduce.weight.shape == (4, 8)  # the low rank of W_z W_v


@pytest.mark.parametrize("subsample", [False, "before"])
@pytest.mark.parametrize("pairwise", PAIRWISE[1:])
def test_queries_that_differ_between_images_choose_the_form_of_the_image(pairwise, subsample):
    block = image_queries(awake(NonLocal(8, pairwise=pairwise, subsample=subsample, scale=-0.7).double()))
    model = simplify(nn.Sequential(block), [images_with_constant_channels()], max_error=1e-8)
    (entry,) = model.report.blocks
    assert entry.form == "image"
    assert entry.errors["shared"] > 0.01
    unseen = images_with_constant_channels(3)
    torch.testing.assert_close(model(unseen), block(unseen), rtol=1e-9, atol=1e-9)


def test_the_gaussian_form_is_exact_where_all_positions_of_an_image_look_alike_to_the_keys():
    block = awake(NonLocal(4, pairwise="gaussian", scale=0.5).double())
    x = torch.randn(8, 4, 1, 1, dtype=torch.float64).expand(8, 4, 3, 3)
    model = simplify(nn.Sequential(block), [x], max_error=1e-10)
    assert model.report.replaced == ["0"]
    noisy = x + 0.01 * torch.randn_like(x)
    error = (model(noisy) - block(noisy)).norm() / (block(noisy) - noisy).norm()
    assert error < 0.02


def test_the_gaussian_form_uses_the_mean_position_times_the_scale():
    block = awake(NonLocal(4, pairwise="gaussian", scale=0.5).double())
    x = torch.randn(8, 4, 3, 3, dtype=torch.float64)
    model = simplify(nn.Sequential(block), [x], max_error=math.inf)
    fit = x[[0, 1, 2, 4, 5, 6]]
    torch.testing.assert_close(model[0].key.weight[0], 0.5 * fit.mean((0, 2, 3)))
    image = OneMapContext(4, 2, pairwise="gaussian", query="image", scale=0.5).double()
    x_BPC = x.flatten(2).transpose(1, 2)
    expected = pairwise_weights(x_BPC.mean(1, keepdim=True), x_BPC, pairwise="gaussian", scale=0.5)[:, 0]
    torch.testing.assert_close(image.weights(x, x_BPC), expected)


def test_queries_that_only_move_all_keys_alike_need_no_map_of_their_own():
    """theta_i - q is orthogonal to the differences of the keys: the logits differ by a constant of the row."""
    block = awake(NonLocal(8).double())
    with torch.no_grad():
        block.phi.weight[0] = 0
        block.theta.weight[1:] = 0
    model = simplify(nn.Sequential(block), [torch.randn(8, 8, 5, 6, dtype=torch.float64)], max_error=1e-10)
    assert model.report.blocks[0].form == "shared"


def test_dnl_becomes_the_average_and_its_unary_map():
    block = awake(DisentangledNonLocal(8, norm="batch").double()).eval()
    nn.init.zeros_(block.query.weight)
    x = torch.randn(8, 8, 5, 6, dtype=torch.float64)
    model = simplify(nn.Sequential(block), [x], max_error=1e-10)
    assert list(model.report.blocks[0].errors) == ["shared"]
    unseen = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(model(unseen), block(unseen), rtol=1e-10, atol=1e-10)


def test_a_block_whose_positions_attend_to_themselves_is_kept():
    model = nn.Sequential(needs_its_query(), no_query(awake(NonLocal(8))))
    result = simplify(model, [torch.randn(12, 8, 5, 6)])
    assert result.report.replaced == ["1"]
    assert isinstance(result[0], NonLocal)
    assert "is above max_error=0.02; with one vector per image none could be below" in result.report.kept["0"]
    entry = result.report.blocks[0]
    assert entry.error > 0.9
    assert 0.9 < entry.least_error <= entry.error
    forced = simplify(model, [torch.randn(12, 8, 5, 6)], max_error=math.inf)
    assert forced.report.replaced == ["0", "1"]


class Marks(nn.Module):
    """Two classes at each position, by the first two channels; `loud` is how much of the block's context they see."""

    def __init__(self, *blocks, loud=1.0, num_classes=2):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.loud = loud
        self.num_classes = num_classes

    def forward(self, x):
        y = x
        for block in self.blocks:
            y = block(y)
        return (x + self.loud * (y - x))[:, :2]


def test_a_block_whose_loss_changes_no_decision_is_replaced():
    x = torch.randn(40, 8, 5, 6)
    quiet = simplify(Marks(needs_its_query(), loud=0.001), [x])
    (entry,) = quiet.report.blocks
    assert entry.replaced
    assert entry.error > 0.9
    assert entry.changed == quiet.report.changed <= 0.02
    assert quiet.report.decisions == 10 * 30
    assert "of 300 decisions changed" in str(quiet.report)
    loud = simplify(Marks(needs_its_query()), [x])
    (entry,) = loud.report.blocks
    assert not entry.replaced
    assert entry.changed > 0.02
    assert loud.report.changed == 0
    assert re.search(r"is above max_error=0.02; .*; with it 0\.\d+ of the model's decisions would change", entry.reason)


def test_the_share_of_changed_decisions_is_counted_on_the_held_out_images():
    model = Marks(needs_its_query(), needs_its_query(), loud=0.1)
    x = torch.randn(40, 8, 5, 6)
    result = simplify(model, [x], max_error=0.4)
    assert result.report.replaced == ["blocks.0", "blocks.1"]
    held = x[3::4]
    changed = (model(held).argmax(1) != result(held).argmax(1)).double().mean().item()
    assert 0 < changed <= 0.4
    assert result.report.changed == pytest.approx(changed)
    assert max(entry.changed for entry in result.report.blocks) == pytest.approx(changed), "the last one: all together"


def test_replacements_may_not_add_up_to_more_changed_decisions_than_allowed():
    model = Marks(needs_its_query(), needs_its_query(), loud=0.1)
    x = torch.randn(40, 8, 5, 6)
    shares = [entry.changed for entry in simplify(model, [x], max_error=0.4).report.blocks]
    between = (min(shares) + max(shares)) / 2
    report = simplify(model, [x], max_error=between).report
    assert len(report.replaced) == 1
    assert report.changed <= between
    assert max(entry.changed for entry in report.blocks) > between


@pytest.mark.parametrize(
    ("model", "count", "match"),
    [
        (
            lambda: Marks(needs_its_query(), loud=0.001, num_classes=5),
            40,
            "the model gives no class scores to judge it by",
        ),
        (lambda: nn.Sequential(needs_its_query()), 40, "the model gives no class scores to judge it by"),
        (lambda: Marks(needs_its_query(), loud=0.001), 16, "120 held-out decisions are too few to judge it by"),
    ],
)
def test_decisions_that_mean_nothing_or_are_too_few_replace_no_block(model, count, match):
    report = simplify(model(), [torch.randn(count, 8, 5, 6)]).report
    assert report.replaced == []
    assert match in next(iter(report.kept.values()))
    assert report.blocks[0].changed is None


def test_of_several_outputs_the_one_with_most_changed_decisions_counts():
    model = gcnet.create_model("scenes", num_classes=6, block="nl").eval()
    decisions = Decisions(model, [torch.rand(4, 1, 48, 48), torch.rand(3, 1, 48, 48)])
    assert decisions.count == 7 * 16
    other = copy.deepcopy(model)
    assert decisions.changed(other) == 0
    with torch.no_grad():
        other.head.weight.neg_()  # all marks turn round; the other output, the items, stays
        other.head.bias.neg_()
    assert decisions.changed(other) == 1


def test_w_q_zero_is_exact_in_float32():
    block = no_query(awake(NonLocal(16)))
    block.theta.bias.data.zero_()
    x = torch.randn(8, 16, 6, 6)
    model = simplify(nn.Sequential(block), [x])
    assert model.report.blocks[0].error < 1e-6
    torch.testing.assert_close(model(x) - x, block(x) - x, rtol=1e-5, atol=1e-6)


def test_the_error_is_that_of_the_definition():
    block = awake(NonLocal(8).double())
    x = torch.randn(8, 8, 5, 6, dtype=torch.float64)
    model = simplify(nn.Sequential(block), [x], max_error=math.inf)
    held = x[[3, 7]]
    c, new = block(held) - held, model(held) - held
    difference = (new - c).square().sum((1, 2, 3))
    varying = (c - c.mean((0, 2, 3), keepdim=True)).norm()
    entry = model.report.blocks[0]
    assert entry.error == pytest.approx((difference.sum().sqrt() / varying).item(), rel=1e-6)
    assert entry.worst_image == pytest.approx((difference.max().sqrt() * 2**0.5 / varying).item(), rel=1e-6)
    assert entry.error_with_constant == pytest.approx(((new - c).norm() / c.norm()).item(), rel=1e-6)
    least = (c - c.mean((2, 3), keepdim=True)).norm() / varying
    assert entry.least_error == pytest.approx(least.item(), rel=1e-6)
    expected = (model(held) - block(held)).norm() / block(held).norm()
    assert model.report.output_error == pytest.approx(expected.item(), rel=1e-6)
    fit = x[[0, 1, 2, 4, 5, 6]]
    residual = (model(fit) - block(fit)).mean((0, 2, 3))  # what was left is in the bias
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-12)


def test_a_large_constant_does_not_hide_a_lost_context():
    block = needs_its_query()
    nn.init.constant_(block.out.bias, 1000.0)
    result = simplify(nn.Sequential(block), [torch.randn(12, 8, 5, 6)])
    assert result.report.replaced == []
    assert result.report.blocks[0].error_with_constant < 0.02


def test_an_untrained_block_adds_nothing_and_so_does_its_replacement():
    x = torch.randn(8, 8, 5, 6)
    model = simplify(nn.Sequential(NonLocal(8)), [x])
    assert model.report.blocks[0].error == 0
    assert torch.equal(model(x), x)


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (lambda: NonLocal(8, subsample="after"), "takes the maximum of the keys"),
        (lambda: CrissCross(8), "a row and a column of its own"),
        (lambda: DualAttention(8), "has no query"),
        (lambda: timm.layers.NonLocalAttn(8, rd_divisor=1), "call gcnet.accelerate on the model first"),
        (lambda: type("Own", (NonLocal,), {})(8), "not that of the block we know"),
        (lambda: _with(NonLocal(8), hook=True), "carries a hook"),
        (lambda: _with(NonLocal(8, norm="batch"), statistics=False), "no running statistics"),
        (lambda: _with(NonLocal(8), parametrized=True), "no plain Linear any more"),
    ],
)
def test_what_has_no_closed_form_is_kept_and_said(block, match):
    result = simplify(nn.Sequential(block()), [torch.randn(8, 8, 4, 4)], max_error=math.inf)
    assert match in result.report.kept["0"]
    assert result.report.replaced == []
    assert result.report.output_error == 0
    assert match in str(result.report)


def _with(block, *, hook=False, statistics=True, parametrized=False):
    if hook:
        block.register_forward_hook(lambda module, args, output: output)
    if not statistics:
        block.norm = nn.BatchNorm1d(8, track_running_stats=False)
    if parametrized:
        parametrizations.weight_norm(block.out)
    return block


def test_blocks_that_are_not_called_or_not_finite_are_kept():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = no_query(awake(NonLocal(8))), no_query(awake(NonLocal(8)))

        def forward(self, x):
            return self.used(x)

    model = Model()
    nn.init.constant_(model.used.out.bias, float("nan"))
    report = simplify(model, [torch.randn(8, 8, 4, 4)], max_error=math.inf).report
    assert report.kept == {
        "used": "its outputs on the calibration images are not all finite",
        "unused": "it was not called on the calibration images",
    }


def test_batches_may_be_loader_generator_lists_or_one_tensor():
    model = nn.Sequential(no_query(awake(NonLocal(8))))
    x = torch.randn(10, 8, 4, 4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(10)), batch_size=3)
    given = [x, [x], loader, ((part, "label") for part in x.split(4)), iter(x.split(1))]
    reports = [simplify(model, batches).report for batches in given]
    assert {report.images for report in reports} == {(8, 2)}
    assert all(report.replaced == ["0"] for report in reports)
    torch.testing.assert_close(
        torch.tensor([r.blocks[0].errors["shared"] for r in reports]), torch.zeros(5), rtol=0, atol=1e-6
    )


def test_a_list_of_images_is_divided_image_by_image():
    images = [torch.rand(3, size, size) for size in (4, 5, 6, 7, 8)]
    fit, held = divide([(images[:2], "targets"), (images[2:], "targets")], torch.zeros(()))
    assert [[image.shape[1] for image in batch] for batch in fit] == [[4, 5], [6, 8]]
    assert [[image.shape[1] for image in batch] for batch in held] == [[7]]


def test_of_two_images_the_last_is_held_out():
    fit, held = divide([torch.zeros(1, 1), torch.ones(1, 1)], torch.zeros((), dtype=torch.float64))
    assert (len(fit), len(held), held[0].item(), held[0].dtype) == (1, 1, 1.0, torch.float64)


@pytest.mark.parametrize(
    ("batches", "error", "match"),
    [
        ([], RewriteError, "batches holds no images; give at least 2.*used up"),
        (iter(()), RewriteError, "batches holds no images"),
        ([torch.randn(1, 8, 4, 4)], RewriteError, "batches holds 1 image;"),
        (3, TypeError, "batches is a int; give an iterable"),
        ("photos", TypeError, "batches is a str"),
        ([{"pixel_values": 1}], TypeError, "yields a dict that is no input"),
        ([torch.randn(8, 3, 4, 4)], RewriteError, r"the model fails on an input \(\(6, 3, 4, 4\)\): .*expected 8"),
    ],
)
def test_batches_that_will_not_do(batches, error, match):
    with pytest.raises(error, match=match):
        simplify(nn.Sequential(NonLocal(8)), batches)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"max_error": -0.1}, ValueError, "max_error=-0.1 is not allowed"),
        ({"max_error": float("nan")}, ValueError, "max_error=nan is not allowed"),
        ({"max_error": "2%"}, TypeError, "max_error='2%' is a str"),
        ({"refine_steps": -1}, ValueError, "refine_steps=-1 is not allowed"),
        ({"refine_steps": 1.5}, ValueError, "refine_steps=1.5 is not allowed"),
    ],
)
def test_settings_out_of_range(arguments, error, match):
    with pytest.raises(error, match=match):
        simplify(nn.Sequential(NonLocal(8)), [torch.randn(8, 8, 4, 4)], **arguments)


def test_models_that_will_not_do():
    x = [torch.randn(8, 8, 4, 4)]
    with pytest.raises(RewriteError, match="this Sequential holds no non-local block; simplify looks for"):
        simplify(nn.Sequential(nn.Conv2d(8, 8, 1)), x)
    simplified = simplify(nn.Sequential(no_query(NonLocal(8))), x)
    with pytest.raises(RewriteError, match=r"no non-local block any more \(it was simplified before\)"):
        simplify(simplified, x)
    with pytest.raises(RewriteError, match=r"it is folded.*simplify first, then fold"):
        simplify(gcnet.fold(nn.Sequential(NonLocal(8)).eval(), x[0]), x)
    with pytest.raises(TypeError, match="model is a str"):
        simplify("model", x)


def unchanged(model, before):
    return (
        all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
        and list(model.state_dict()) == list(before)
        and not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        and not record.rewrites(model)
    )


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_input_is_never_altered_also_by_ctrl_c(interrupted):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), no_query(awake(NonLocal(8, norm="batch")))).train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    def batches():
        for step in range(4):
            if interrupted and step == 2:
                raise KeyboardInterrupt
            yield torch.randn(4, 3, 9, 9)

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            simplify(model, batches(), refine_steps=2)
    else:
        result = simplify(model, batches(), refine_steps=2, max_error=math.inf)
        assert result.report.replaced == ["2"]
        assert all(module.training for module in result.modules())
        assert [p.requires_grad for p in result.parameters()][:2] == [False, True]
        assert all(p.grad is None for p in result.parameters())
    assert unchanged(model, before)
    assert all(module.training for module in model.modules())


def test_ctrl_c_inside_a_pass_leaves_the_input_as_it_was():
    class Stop(nn.Module):
        calls = 0

        def forward(self, x):
            Stop.calls += 1
            if Stop.calls == 3:
                raise KeyboardInterrupt
            return x

    model = nn.Sequential(no_query(awake(NonLocal(8))), Stop()).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        simplify(model, torch.randn(8, 8, 4, 4).split(2))
    assert unchanged(model, before)
    assert model[0].training


def test_refinement_is_used_where_it_helps_and_never_hurts():
    block = awake(NonLocal(8, pairwise="concatenation"), std=0.5)
    x = torch.randn(64, 8, 4, 4)
    closed = simplify(nn.Sequential(block), x.split(16), max_error=math.inf).report
    report = simplify(nn.Sequential(block), x.split(16), max_error=math.inf, refine_steps=25).report
    errors = report.blocks[0].errors
    assert errors["shared"] == pytest.approx(closed.blocks[0].errors["shared"])
    assert errors["shared, refined"] < errors["shared"]
    assert report.blocks[0].refined
    assert report.output_error < closed.output_error
    assert errors["shared, refined"] >= report.blocks[0].least_error
    exact = simplify(nn.Sequential(no_query(awake(NonLocal(8)))), x.split(16), refine_steps=5)
    assert not exact.report.blocks[0].refined  # nothing to gain
    assert exact.report.blocks[0].error < 1e-6


def test_the_outputs_are_distilled_together():
    torch.manual_seed(1)
    model = nn.Sequential(awake(NonLocal(8), 0.4), nn.ReLU(), awake(NonLocal(8), 0.4), nn.Conv2d(8, 4, 1))
    x = torch.randn(64, 8, 4, 4)
    plain = simplify(model, x.split(16), max_error=math.inf)
    refined = simplify(model, x.split(16), max_error=math.inf, refine_steps=25)
    assert refined.report.distilled
    assert refined.report.output_error < plain.report.output_error
    with torch.no_grad():
        measured = (refined(x[3::4]) - model(x[3::4])).norm() / model(x[3::4]).norm()
    assert refined.report.output_error == pytest.approx(measured.item(), rel=1e-4)
    assert torch.equal(refined[3].weight, model[3].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype):
    model = nn.Sequential(no_query(awake(NonLocal(8)))).to(dtype)
    result = simplify(model, [torch.randn(8, 8, 4, 4)], max_error=0.1, refine_steps=2)
    assert result.report.replaced == ["0"]
    assert {p.dtype for p in result.parameters()} == {dtype}
    assert result(torch.randn(2, 8, 4, 4, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("spatial", [(7,), (5, 3), (2, 3, 4)])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_maps_of_any_dimension_compile_pickle_and_fold(pairwise, spatial):
    block = awake(NonLocal(6, pairwise=pairwise, subsample="before"))
    x = torch.randn(8, 6, *spatial)
    model = simplify(nn.Sequential(block), [x], max_error=math.inf).eval()
    expected = model(x)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert model(x[:0]).shape == x[:0].shape
    shifted = x.flatten(2).roll(1, 2).unflatten(2, spatial)
    if spatial == (7,):
        return
    everything = [parameter.grad is not None for parameter in _backward(model, shifted)]
    assert all(everything)


def _backward(model, x):
    model(x).square().sum().backward()
    return [p for name, p in model.named_parameters() if not name.endswith("key.bias")]


def test_channels_last_gives_the_same():
    block = awake(NonLocal(8, pairwise="dot_product"))
    model = simplify(nn.Sequential(block), [torch.randn(8, 8, 5, 6)], max_error=math.inf)
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), model(x))


def test_a_bare_block_a_shared_block_and_inserted_ones():
    x = torch.randn(8, 8, 5, 6)
    bare = simplify(no_query(awake(NonLocal(8))), [x])
    assert type(bare) is ContextBlock
    assert bare.report.replaced == [""]
    assert record.rewrites(bare)[-1]["replaced"] == {"": "shared"}
    block = no_query(awake(NonLocal(8)))
    twice = simplify(nn.Sequential(block, nn.ReLU(), block), [x])
    assert twice[0] is twice[2]
    assert twice.report.replaced == ["0", "2"]
    model = gcnet.insert(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), "nl", at="0")
    no_query(awake(gcnet.inserted(model)["0.context"]))
    simple = simplify(model, [x])
    assert [type(block) for block in gcnet.inserted(simple).values()] == [ContextBlock]
    kept = {name for name in model.state_dict() if "context" not in name}
    names = {"key.weight", "key.bias"} | {f"add.{a}.{b}" for a in ("reduce", "expand") for b in ("weight", "bias")}
    assert set(simple.state_dict()) == kept | {f"0.context.{name}" for name in names}
    folded = gcnet.fold(simple.eval(), x)
    assert "FoldedContext" in repr(folded)


def test_after_accelerate_a_block_of_timm_is_simplified():
    block = timm.layers.NonLocalAttn(16, rd_divisor=1).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    nn.init.zeros_(block.t.weight)
    x = torch.randn(8, 16, 5, 6)
    model = simplify(gcnet.accelerate(nn.Sequential(block)), [x])
    assert model.report.replaced == ["0"]
    torch.testing.assert_close(model(x), block(x), rtol=1e-4, atol=1e-5)


def test_the_public_function_times_what_it_replaced():
    model = nn.Sequential(no_query(awake(NonLocal(8))), needs_its_query())
    report = gcnet.simplify(model, [torch.randn(12, 8, 12, 12)]).report
    median, low, high = report.blocks[0].speed_up
    assert 0 < low <= median <= high
    assert report.blocks[1].speed_up is None
    assert "times faster" in str(report)
    assert report.table[0]["name"] == "0"


def test_the_report_survives_inference_mode():
    with torch.inference_mode():
        result = simplify(nn.Sequential(no_query(awake(NonLocal(8)))), [torch.randn(8, 8, 4, 4)], refine_steps=2)
    assert result.report.replaced == ["0"]


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="pairwise='cosine' is unknown"):
        OneMapContext(8, 4, pairwise="cosine")
    with pytest.raises(ValueError, match="whose mean query is always zero"):
        OneMapContext(8, 4, pairwise="disentangled", query="image")
