"""Where blocks look: the maps are the blocks' own, and the pictures show them where they are."""

import pytest
import torch
import torchvision

import gcnet
from gcnet.report.attention import CIVIDIS, NARROWEST, attention_maps, draw_attention, last_of_stages


def resnet(*blocks, **options):
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    for block, stage in blocks:
        model = gcnet.insert(model, block, stages=stage, **options)
    for block in gcnet.inserted(model).values():
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs_of(model):
    """What each block sees, in a pass with the maps watched."""
    seen = {}
    blocks = gcnet.inserted(model)
    handles = [
        block.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        for name, block in blocks.items()
    ]
    with torch.no_grad(), attention_maps(model) as maps:
        model(torch.rand(2, 3, 96, 64))
    for handle in handles:
        handle.remove()
    return blocks, seen, maps


def test_the_map_of_a_context_block_is_the_softmax_of_its_key():
    blocks, seen, maps = inputs_of(resnet(("gc", "c4"), reduction=4))
    assert set(maps) == set(blocks)
    name = next(iter(blocks))
    logits = torch.einsum("bchw,c->bhw", seen[name], blocks[name].key.weight[0])
    assert maps[name].shape == (2, 6, 4)
    torch.testing.assert_close(maps[name], logits.flatten(1).softmax(1).view_as(logits))


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product"])
def test_the_map_of_a_non_local_block_is_the_mean_over_its_queries(pairwise):
    blocks, seen, maps = inputs_of(resnet(("nl", "c3"), pairwise=pairwise))
    ((name, block),) = blocks.items()
    theta, phi, _ = block.embed(seen[name])
    logits = theta @ phi.transpose(1, 2)
    weights = logits.softmax(2) if pairwise == "embedded_gaussian" else logits / logits.shape[2]
    torch.testing.assert_close(maps[name].flatten(1), weights.mean(1), rtol=1e-4, atol=1e-6)


def test_an_average_pool_has_no_map_to_show():
    _, _, maps = inputs_of(resnet(("se", "c3"), ("gc", "c4"), reduction=4))
    assert set(maps) == {"layer3.0.context", "layer3.1.context"}
    with_se = torchvision.models.mobilenet_v3_small().eval()
    with attention_maps(with_se) as maps, torch.no_grad():
        with_se(torch.rand(1, 3, 32, 32))
    assert maps == {}  # torchvision's own SE blocks


def test_of_a_stage_the_last_block_is_shown():
    maps = {"a": torch.zeros(1, 4, 4), "b": torch.zeros(1, 4, 4), "c": torch.zeros(1, 2, 2)}
    assert list(last_of_stages(maps)) == ["b", "c"]


def test_the_colours_are_brightest_where_the_map_is_highest_and_padding_is_cut_off():
    image = torch.full((3, 320, 400), 128, dtype=torch.uint8)
    hot = torch.zeros(8, 10)
    hot[1, 2] = 0.7
    hot[7, 9] = 0.9  # in the padding
    first, second = draw_attention(image, {"hot": hot, "flat": torch.full((8, 10), 0.1)}, (0.5, 0.5)).split(400, dim=2)
    picture = first[:, :320].float()
    # of 8 x 10 positions the image covers 4 x 5: position (1, 2) is its cell of 80 x 80 pixels
    row, column = divmod(int((picture[0] - picture[2]).argmax()), 400)
    assert 80 <= row < 160
    assert 160 <= column < 240
    yellow, blue = (torch.tensor(CIVIDIS[place]).float() for place in (-1, 0))
    grey = 0.7 * 128
    torch.testing.assert_close(picture[:, 120, 200], 0.15 * grey + 0.85 * yellow, atol=1.0, rtol=0.02)
    torch.testing.assert_close(picture[:, 300, 20], 0.55 * grey + 0.45 * blue, atol=1.0, rtol=0)
    assert second[:, :320].float().std(dim=(1, 2)).max() == 0
    assert first.shape[1] > 320  # the caption


def test_small_images_are_enlarged_and_long_names_cut_so_that_captions_can_be_read():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    picture = draw_attention(image, {"a_long_name_of_a_module." * 20: torch.rand(2, 4)})
    assert picture.shape[2] == NARROWEST
    caption = picture[:, NARROWEST // 2 :]
    assert caption[:, :10, -2:].min() == 255  # the name ends before the edge
