"""The report as a file, and figures: size, what the page holds, that names stay text, that maps are the kept ones."""

import base64
import io
import json
import math
import zlib
from collections import OrderedDict
from html.parser import HTMLParser

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import gcnet
from gcnet.analysis.grids import Grid, KeptImage
from gcnet.analysis.verdict import Verdict
from gcnet.blocks import NonLocal
from gcnet.report import distances as page_module
from gcnet.report.maps import page_data, short_names
from gcnet.surgery import record

HOSTILE = "<img src=x onerror=alert(1)>"


def randomised(model, std=0.5):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std)
    return model


def non_local_and_context():
    blocks = {"nl": NonLocal(3, reduction=1, scale=0.5), "gc": gcnet.create_block("gc", 3, reduction=1)}
    return randomised(nn.Sequential(OrderedDict(blocks)))


class Page(HTMLParser):
    """Tags with their attributes, and the data for the script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._inside = [], [], None
        self.feed(text)
        self.data = next((json.loads(t) for (name, a), t in self.texts if a.get("type") == "application/json"), None)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs))

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._inside, data))

    @property
    def text(self):
        return " ".join(data for (name, _), data in self.texts if name not in ("script", "style"))


def unpacked(grid):
    """(H, p, q), read as analysis.js reads it."""
    buffer = zlib.decompress(base64.b64decode(grid["data"]))
    H, p, q = grid["heads"], math.prod(grid["queries"]), math.prod(grid["keys"])
    if "channels" in grid:
        D, Q = grid["channels"], grid["tokens"]
        numbers = np.frombuffer(buffer, "<i2").astype(np.float64)
        query, key = numbers[: H * p * D].reshape(H, p, D), numbers[H * p * D :].reshape(H, Q, D)
        return torch.from_numpy(grid["scale"] * query @ key.transpose(0, 2, 1)).softmax(2)[:, :, Q - q :]
    low, step = np.frombuffer(buffer, "<f4", 2 * H * p).astype(np.float64).reshape(2, H, p, 1)
    levels = np.frombuffer(buffer, np.uint8, offset=8 * H * p).reshape(H, p, q)
    return torch.from_numpy(low + step * levels)


def test_the_page_is_one_file_that_fetches_nothing(tmp_path):
    found = gcnet.analyze(non_local_and_context(), torch.rand(3, 3, 8, 10))
    found.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not [a for _, a in page.tags if a.keys() & {"src", "href", "srcset", "action"}]
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "img"})
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    assert "http" not in text.replace(page_module.__name__, "").replace("http-equiv", "")
    assert "3 images" in page.text
    for row in found.table:
        assert f"{row['att_cos']:.3f}" in page.text
    assert "Blocks: 1 query-independent, 1 with one map for all queries." in page.text
    assert str(found.verdicts["nl"]) in page.text
    assert [block["name"] for block in page.data["blocks"]] == ["nl", "gc"]
    assert page.data["images"][1]["grids"][1]["queries"] == [1, 1]
    found.save(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_names_of_files_classes_and_modules_are_text(tmp_path):
    model = nn.Sequential(
        OrderedDict({f"{HOSTILE}</script>": NonLocal(3, reduction=1), "p": nn.AdaptiveAvgPool2d(1), "f": nn.Flatten()})
    )
    record.set_classes(model, [f"class {HOSTILE}", "</script><script>alert(2)</script>", "'\"&\u2028"])
    for index in range(2):
        Image.new("RGB", (9, 8), (80 * index, 10, 0)).save(tmp_path / f"{index}{HOSTILE}.png")
    (tmp_path / f"broken{HOSTILE}.png").write_bytes(b"")

    def transform(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    found = gcnet.analyze(model, tmp_path, transform=transform)
    found.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img"})
    assert [a for tag, a in page.tags if tag == "script"] == [{"id": "data", "type": "application/json"}, {}]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert [image["name"] for image in page.data["images"]] == [f"{index}{HOSTILE}.png" for index in range(2)]
    assert str(tmp_path) not in text
    assert {image["label"] for image in page.data["images"]} <= {row["class"] for row in found.per_class}
    assert f"{HOSTILE}</script>" in page.text
    assert f"broken{HOSTILE}.png" in page.text


@pytest.mark.parametrize("kind", ["maps", "factors", "dot_product", "gc", "tokens"])
def test_the_maps_on_the_page_are_the_kept_ones_but_for_their_last_bit(kind):
    x = torch.randn(2, 3, 9, 12)
    if kind == "tokens":
        model = timm.create_model("test_vit", num_classes=3, img_size=32)
        x = torch.randn(2, 3, 32, 32)
    elif kind == "gc":
        model = randomised(gcnet.create_block("gc", 3, reduction=1))
    elif kind == "dot_product":
        model = randomised(NonLocal(3, reduction=1, pairwise="dot_product"))
    else:
        model, x = randomised(NonLocal(64 if kind == "maps" else 2, reduction=1, scale=0.05)), torch.randn(2, 64, 9, 12)
        x = x if kind == "maps" else x[:, :2]
    found = gcnet.analyze(model, x)
    packed = page_data(found)
    for image, kept in zip(packed["images"], found.kept, strict=True):
        for block, grid in zip(packed["blocks"], image["grids"], strict=True):
            assert ("channels" in grid) == (kind == "factors")
            exact = kept.grids[block["name"]].maps().double()
            step = (exact.amax(2) - exact.amin(2))[..., None] / 255
            assert ((unpacked(grid) - exact).abs() <= 0.51 * step + 1e-7).all()
            assert exact.std() > 0


def test_the_numbers_to_sort_images_by_are_the_distances_of_single_images():
    for pairwise, name, factor in (("embedded_gaussian", "att_cos", 1), ("dot_product", "att_spread", 0.5)):
        block, x = randomised(NonLocal(4, pairwise=pairwise)).double(), torch.randn(4, 4, 5, 6, dtype=torch.float64)
        found = gcnet.analyze(nn.Sequential(OrderedDict(nl=block)), x[:, :4])
        # only three channels make a picture; the fourth is for the block alone
        numbers = [image["dependence"][0] for image in page_data(found)["images"]]
        alone = [factor * gcnet.analyze(block, x[n : n + 1]).table[0][name] for n in range(4)]
        assert numbers == pytest.approx(alone, abs=1e-5)
        assert len(set(numbers)) == 4
        assert np.mean(numbers) == pytest.approx(factor * found.table[0][name], abs=1e-5)


def synthetic(heads, side=16, blocks=13):
    """An analysis of 12 photographs whose maps are noise, which no packing makes smaller."""
    names = [f"layer{n}.attention" for n in range(blocks)]
    row = gcnet.analyze(NonLocal(3), torch.rand(2, 3, 4, 4)).table[0]
    y, x = torch.meshgrid(torch.linspace(0, 3, 192), torch.linspace(0, 4, 256), indexing="ij")
    photograph = 127 + 80 * (7 * x + 3 * y.square()).sin() + 12 * torch.randn(3, 192, 256)
    kept = []
    for number in range(12):
        grids = {
            name: Grid(
                (side, side), (side, side), ((50, 38), (50, 38)), "softmax", torch.rand(heads, side**2, side**2), None
            )
            for name in names
        }
        figures = {name: {"att_cos": 0.1, "att_spread": 0.1} for name in names}
        kept.append(KeptImage(str(number), None, photograph.clamp(0, 255).to(torch.uint8), grids, figures))
    verdict = Verdict("undecided")
    verdict.numbers = {
        "dependence": 0.1,
        "low": 0.0,
        "high": 0.2,
        "images": 12,
        "independent_below": 0.1,
        "dependent_above": 0.2,
    }
    heads_rows = [{"block": name, "head": h, "att_cos": 0.1} for name in names for h in range(heads)]
    table = [{**row, "block": name, "images": 12} for name in names]
    return gcnet.Analysis("Synthetic", 12, table, heads_rows, [], [], dict.fromkeys(names, verdict), {}, {}, kept)


def test_12_images_of_13_blocks_stay_below_15_mb(tmp_path):
    synthetic(heads=1).save(tmp_path / "report.html")
    assert 13e6 < (tmp_path / "report.html").stat().st_size < 15e6
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert all(grid["queries"] == [16, 16] for image in page.data["images"] for grid in image["grids"])


def test_of_many_heads_the_queries_are_thinned_out_until_the_page_is_small_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("gcnet.report.maps.BUDGET", 2_300_000)
    found = synthetic(heads=2, side=14, blocks=2)
    packed = page_data(found)
    grid = packed["images"][3]["grids"][1]
    assert (grid["queries"], grid["keys"], grid["full"]) == ([12, 12], [14, 14], [[50, 38], [50, 38]])
    places = found.kept[3].grids["layer1.attention"].places()
    row, column = 7, 2
    there = [(places[0] - grid["rows"][row]).abs(), (places[1] - grid["columns"][column]).abs()]
    assert max(float(t.min()) for t in there) < 1e-4
    chosen = [int(t.argmin()) for t in there]
    assert abs(grid["rows"][row] - (row + 0.5) / 12) < 1 / 28
    exact = found.kept[3].grids["layer1.attention"].maps()[:, chosen[0] * 14 + chosen[1]]
    assert (unpacked(grid)[:, row * 12 + column] - exact).abs().max() < 0.51 / 255


def test_images_without_maps_leave_the_table(tmp_path):
    block = randomised(NonLocal(4))
    overflowing = torch.randn(2, 4, 3, 3)
    overflowing[0] = math.inf
    for images, said in ((torch.randn(2, 4, 9), "no image was kept"), (overflowing, "all finite")):
        found = gcnet.analyze(block, images, keep=1)
        found.save(tmp_path / "report.html")
        page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert page.data is None
        assert said in page.text
        assert "Distances and verdicts" in page.text


def test_names_are_told_without_the_folders_that_they_share():
    assert short_names(["/home/me/red/0.png", "/home/me/blue/0.png"]) == ["red/0.png", "blue/0.png"]
    assert short_names(["/home/me/0.png"]) == ["0.png"]
    assert short_names(["0", "1"]) == ["0", "1"]
    assert short_names(["/a/0.png", "1"]) == ["/a/0.png", "1"]
    assert short_names([]) == []


def test_the_colours_are_viridis():
    from matplotlib import colormaps

    stops = [tuple(int(c[k : k + 2], 16) for k in (1, 3, 5)) for c in page_module.VIRIDIS]
    exact = [colormaps["viridis"](round(255 * n / 16), bytes=True)[:3] for n in range(17)]
    assert np.abs(np.array(stops, int) - np.array(exact, int)).max() <= 1


def test_a_figure_has_the_map_of_every_query_in_every_block_and_is_the_same_each_time(tmp_path):
    found = gcnet.analyze(non_local_and_context(), torch.rand(3, 3, 8, 10))
    found.save(tmp_path / "a.png")
    found.figure(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    found.figure(tmp_path / "c.png", images=[0, 2], queries=[(0.1, 0.9)], blocks=["nl"])
    with Image.open(tmp_path / "a.png") as three, Image.open(tmp_path / "c.png") as two:
        assert three.width > two.width
        assert three.height > two.height
    for name in ("a", "b"):
        found.save(tmp_path / f"{name}.pdf")
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_the_colours_of_a_figure_are_those_of_the_map(tmp_path, monkeypatch):
    from gcnet.report import figure

    found = gcnet.analyze(non_local_and_context(), torch.rand(1, 3, 8, 10))
    drawn = figure._draw(found, [0], [(0.95, 0.05)], ["nl", "gc"])
    maps = [axes.images[1].get_array() for axes in drawn.axes if len(axes.images) == 2]
    grids = found.kept[0].grids
    np.testing.assert_allclose(maps[0], grids["nl"].maps()[0, 70].view(8, 10))  # last row, first column
    np.testing.assert_allclose(maps[1], grids["gc"].maps()[0, 0].view(8, 10))
    mark = next(axes for axes in drawn.axes if len(axes.images) == 2).lines[0]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.5, 7.5))


def test_cells_with_more_keys_are_no_brighter(tmp_path):
    """28 rows in 16 cells: some cells hold one row, some two; a uniform map must look uniform."""
    from gcnet.report import figure

    block = NonLocal(3, reduction=1)
    nn.init.zeros_(block.theta.weight)
    nn.init.zeros_(block.theta.bias)
    found = gcnet.analyze(block, torch.rand(1, 3, 28, 20))
    grid = found.kept[0].grids[""]
    assert grid.maps()[0, 0].unique().numel() > 1
    assert [int(count.sum()) for count in grid.held()] == [28, 20]
    assert figure._map(grid, (0.5, 0.5)) == pytest.approx(np.full((16, 16), 1 / 560), rel=1e-5)
    assert page_data(found)["images"][0]["grids"][0]["held"] == [count.tolist() for count in grid.held()]


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    found = gcnet.analyze(non_local_and_context(), torch.rand(2, 3, 4, 4), keep=1)
    for call, said in (
        (lambda: found.save(tmp_path / "a.svg"), r"ends in '\.svg'; use \.html for the report, \.png or \.pdf"),
        (lambda: found.figure(tmp_path / "a.html"), r"a figure ends in \.png or \.pdf"),
        (lambda: found.figure(tmp_path / "a.png", images=[1]), r"images=\[1\]: 1 images were kept"),
        (lambda: found.figure(tmp_path / "a.png", queries=[(0.5, 1.5)]), r"queries=\[\(0\.5, 1\.5\)\]: give places"),
        (lambda: found.figure(tmp_path / "a.png", blocks=["x"]), r"blocks=\['x'\]: those with 2D maps .* 'nl', 'gc'"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    from gcnet.report import page

    monkeypatch.setattr(page, "find_spec", lambda name: None)
    for name, package in (("a.html", "jinja2"), ("a.png", "matplotlib")):
        with pytest.raises(ModuleNotFoundError, match=rf'{package} must be installed .* pip install "gcnet\[report\]"'):
            found.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_pictures_are_those_of_the_images():
    found = gcnet.analyze(non_local_and_context(), torch.rand(1, 3, 8, 10))
    kind, _, text = page_data(found)["images"][0]["picture"].partition(",")
    assert kind == "data:image/png;base64"
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(text))))).permute(2, 0, 1)
    assert torch.equal(pixels, found.kept[0].picture)
    assert synthetic(heads=1, side=2, blocks=1).kept[0].picture.shape == (3, 192, 256)
    assert page_data(synthetic(heads=1, side=2, blocks=1))["images"][0]["picture"].startswith("data:image/jpeg")
