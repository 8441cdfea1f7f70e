"""`analyze` on attention of PyTorch, timm and torchvision: the maps are those that their own code computes."""

import pytest
import timm
import torch
import torchvision
from timm.layers import Attention
from torch import nn

import gcnet
from gcnet.analysis.readers.attention import Seen
from gcnet.analysis.readers.blocks import readers
from gcnet.ops.distances import average_cosine_distance, average_jensen_shannon


def _read(module, *args, images=1, **kwargs):
    (reader,) = readers(module)[0].values()
    module.eval()
    with torch.no_grad():
        return reader(module, Seen(args, kwargs, module(*args, **kwargs), images))


def _maps(call):
    """(B, W, H, P, Q)."""
    attention = call.attention
    B, W, H, P, _ = attention.query.shape
    maps = torch.cat([attention.maps(slice(b, b + 1)).weights(slice(None)) for b in range(B)])
    assert torch.equal(maps, attention.maps(slice(None)).weights(slice(None)))
    return maps.reshape(B, W, H, P, -1)


def _randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kdim", [None, 6])
@pytest.mark.parametrize("masked", [None, "bool", "float", "padding"])
def test_multihead_attention_gives_its_own_weights(batch_first, kdim, masked):
    module = _randomised(nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=kdim, vdim=kdim))
    query, key = torch.randn(2, 5, 8), torch.randn(2, 7, kdim or 8)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    drop = torch.rand(5, 7) < 0.3
    drop[:, 0] = False
    given = {"bool": {"attn_mask": drop}, "float": {"attn_mask": torch.randn(4, 5, 7)}}.get(masked, {})
    if masked == "padding":
        given = {"key_padding_mask": torch.tensor([[False] * 7, [False] * 4 + [True] * 3])}
    call = _read(module, query, key, key, need_weights=False, images=2, **given)
    expected = module(query, key, key, average_attn_weights=False, **given)[1]
    torch.testing.assert_close(_maps(call)[:, 0].float(), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_timm_attention_gives_the_weights_that_its_output_is_made_of(masked):
    module = _randomised(Attention(8, 2, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm))
    x, mask = torch.randn(3, 5, 8), torch.rand(5, 5) < 0.7
    mask |= torch.eye(5, dtype=torch.bool)
    given = {"attn_mask": mask} if masked else {}
    call = _read(module, x, images=3, **given)
    values = module.qkv(x).chunk(3, dim=-1)[2].unflatten(-1, (2, 4)).transpose(1, 2)
    output = module.proj((_maps(call)[:, 0].float() @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, module(x, **given))
    torch.testing.assert_close(call.output[:, 0], output)
    torch.testing.assert_close(call.constant, module.proj(module.qkv.bias.chunk(3)[2]))


@pytest.mark.parametrize("shifted", [False, True])
def test_timm_windows_give_the_weights_that_their_output_is_made_of(shifted):
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, num_heads=(2, 2, 2, 2))
    block = _randomised(model).layers[0].blocks[int(shifted)]
    assert (block.attn_mask is not None) == shifted
    module, x = block.attn, torch.randn(2 * 4, 49, 12)
    call = _read(module, x, block.attn_mask, images=2)
    values = module.qkv(x).chunk(3, dim=-1)[2].unflatten(-1, (2, 6)).transpose(1, 2)
    output = module.proj((_maps(call).flatten(0, 1).float() @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, module(x, block.attn_mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ShiftedWindowAttention", "ShiftedWindowAttentionV2"])
@pytest.mark.parametrize(("size", "shift"), [((6, 9), (0, 0)), ((6, 9), (1, 1)), ((5, 7), (1, 2)), ((3, 9), (1, 1))])
def test_torchvision_windows_give_the_weights_that_their_output_is_made_of(name, size, shift):
    kind = getattr(torchvision.models.swin_transformer, name)
    module = _randomised(kind(8, [3, 3], list(shift), 2))
    x = torch.randn(2, *size, 8)
    call = _read(module, x, images=2)
    bias = module.qkv.bias.chunk(3)[2]
    values = nn.functional.linear(call.input, module.qkv.weight.chunk(3)[2], bias).unflatten(-1, (2, 4)).transpose(2, 3)
    output = module.proj((_maps(call).float() @ values).transpose(2, 3).flatten(3))
    inside = torch.tensor(size).remainder(3).eq(0).all()  # elsewhere the padding's output is cut off
    if inside:
        torch.testing.assert_close(call.output, output, rtol=1e-4, atol=1e-5)
    else:
        same = (call.output - output).abs().amax(-1) < 1e-4
        assert same.sum() == 2 * size[0] * size[1]


def test_a_vit_of_timm_has_a_row_for_each_block_and_its_class_token_is_no_query():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()
    x = torch.randn(3, 3, 64, 64)
    found = gcnet.analyze(model, x, keep=2)
    assert [row["block"] for row in found.table] == ["blocks.0.attn", "blocks.1.attn"]
    row = found.table[0]
    assert (row["kind"], row["heads"], row["positions"], row["keys"], row["images"]) == ("Attention", 3, 16, 17, 3)
    tokens = []
    handle = model.blocks[0].attn.register_forward_pre_hook(lambda _, args: tokens.append(args[0]))
    model(x)
    handle.remove()
    maps = _maps(_read(model.blocks[0].attn, tokens[0], images=3))[:, 0, :, 1:]
    assert row["att_cos"] == pytest.approx(average_cosine_distance(maps).mean().item(), abs=1e-10)
    assert row["att_jsd"] == pytest.approx(average_jensen_shannon(maps).value.mean().item(), abs=1e-10)
    assert [r["head"] for r in found.heads] == [0, 1, 2] * 2
    heads = average_cosine_distance(maps).mean(0)
    assert [r["att_cos"] for r in found.heads[:3]] == pytest.approx(heads.tolist(), abs=1e-10)
    assert {row["class"] for row in found.per_class} <= {"0", "1", "2", "3", "4"}
    grid = found.kept[1].grids["blocks.0.attn"]
    assert (grid.queries, grid.keys) == ((4, 4), (4, 4))
    torch.testing.assert_close(grid.maps(), maps[1, :, :, 1:].float())


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=3), "MultiheadAttention"),
        (
            lambda: torchvision.models.SwinTransformer([2, 2], 8, [2, 2], [2, 2], [3, 3], num_classes=3),
            "ShiftedWindowAttention",
        ),
        (
            lambda: timm.create_model(
                "swin_tiny_patch4_window7_224",
                img_size=32,
                window_size=4,
                embed_dim=12,
                num_heads=(2,) * 4,
                num_classes=3,
            ),
            "WindowAttention",
        ),
    ],
)
def test_transformers_with_random_weights_run(build, kind):
    found = gcnet.analyze(build(), torch.randn(2, 3, 32, 32))
    assert {row["kind"] for row in found.table} == {kind}
    assert all(0 < row["att_cos"] < 0.5 and row["images"] == 2 for row in found.table if row["positions"] > 1)
    assert not found.skipped


def test_a_transformer_encoder_of_torch_is_read_too_and_unknown_attention_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.pool = timm.layers.AttentionPoolLatent(8, num_heads=2)

        def forward(self, x):
            return self.pool(self.encoder(x.flatten(2).transpose(1, 2)))

    found = gcnet.analyze(Net(), torch.randn(2, 8, 3, 3))
    assert [row["block"] for row in found.table] == ["encoder.self_attn"]
    assert "analyze does not know this kind of attention" in found.skipped["pool"]
