"""Objects drawn on a photograph: the first is on top, and every text is in the picture."""

import torch

from gcnet.tasks.detection.draw import COLOURS, draw_objects


def coloured(picture, colour):
    """Where a picture has exactly that colour."""
    return (picture == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(0)


def test_nothing_found_leaves_the_image():
    image = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    assert torch.equal(draw_objects(image, torch.zeros(0, 4), []), image)


def test_every_text_lies_in_the_picture_on_the_colour_of_its_box():
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    boxes = torch.tensor([[290.0, 100, 299, 120], [10, 0, 40, 30], [-20, 190, 60, 260]])
    picture = draw_objects(image, boxes, ["a long name 0.98"] * 3)
    assert picture.shape == image.shape
    for colour in COLOURS[:3]:
        rows, columns = coloured(picture, colour).nonzero(as_tuple=True)
        assert columns.max() - columns.min() > 60  # the ground of the whole text, wider than box 1 and 2
        assert rows.numel() > 300


def test_the_first_object_is_on_top_of_the_others():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    box = torch.tensor([[20.0, 40, 80, 90]])
    picture = draw_objects(image, box.repeat(2, 1), ["same", "same"])
    assert coloured(picture, COLOURS[0]).any()
    assert not coloured(picture, COLOURS[1]).any()


def test_masks_have_the_colour_of_their_box_and_let_the_image_through():
    image = torch.full((3, 60, 60), 100, dtype=torch.uint8)
    mask = torch.zeros(1, 60, 60, dtype=torch.bool)
    mask[0, 30:50, 30:50] = True
    picture = draw_objects(image, torch.tensor([[30.0, 30, 50, 50]]), ["x"], mask, alpha=0.5)
    inside = picture[:, 44, 44].float()
    torch.testing.assert_close(inside, 0.5 * torch.tensor(COLOURS[0]).float() + 50, atol=1.0, rtol=0)
    assert torch.equal(picture[:, 55, 10], image[:, 55, 10])


def test_a_box_of_no_pixel_is_drawn():
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    picture = draw_objects(image, torch.tensor([[30.2, 30.2, 30.3, 30.3]]), [""])
    assert picture[:, 30, 30].tolist() == list(COLOURS[0])
