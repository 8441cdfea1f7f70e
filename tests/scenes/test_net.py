"""A cell's decision sees nothing beyond its surroundings until something at the spots passes context on."""

import pytest
import torch
from torch import nn

from gcnet.scenes.net import SceneNet


def test_the_outputs_are_one_decision_and_one_item_per_cell():
    marks, items = SceneNet()(torch.rand(3, 1, 48, 48))
    assert marks.shape == (3, 2, 4, 4)
    assert items.shape == (3, 6, 4, 4)


def test_without_a_block_a_far_cell_does_not_matter():
    model = SceneNet().eval()
    images = torch.rand(1, 1, 48, 48)
    changed = images.clone()
    changed[..., :12, :12] += 1
    difference = (model(changed)[0] - model(images)[0]).abs().amax(dim=1)[0]
    assert (difference[2:] == 0).all()
    assert (difference[:, 2:] == 0).all()
    assert difference[0, 0] > 0


def test_what_stands_at_a_spot_reaches_the_decision_but_not_the_items():
    class Mean(nn.Module):
        def forward(self, x):
            return x + x.mean((2, 3), keepdim=True)

    model = SceneNet().eval()
    images = torch.rand(1, 1, 48, 48)
    marks, items = model(images)
    for spot in (0, 1):
        model.spots[spot] = Mean()
        other_marks, other_items = model(images)
        assert (other_marks - marks).abs().max() > 1e-3
        assert torch.equal(other_items, items)
        model.spots[spot] = nn.Identity()


def test_equal_digits_in_two_cells_give_different_vectors_by_their_coordinates():
    model = SceneNet().eval()
    marks, _ = model(torch.zeros(1, 1, 48, 48))
    assert not torch.allclose(marks[0, :, 1, 1], marks[0, :, 2, 2])


def test_all_parameters_get_a_gradient():
    model = SceneNet()
    marks, items = model(torch.rand(2, 1, 48, 48))
    (marks.square().sum() + items.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="channels=2 leaves no channel beside the two coordinates; use at least 3"):
        SceneNet(channels=2)
    with pytest.raises(ValueError, match="num_items=0 must be at least 1"):
        SceneNet(num_items=0)
