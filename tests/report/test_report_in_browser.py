"""The report in headless Chromium: click, hover, keyboard, both themes, a phone. Skipped where there is no Chromium."""

import json
from collections import OrderedDict

import pytest
import torch
from torch import nn

import gcnet
from gcnet.analysis.grids import KeptImage
from gcnet.blocks import NonLocal
from tests.report.browser import Browser, executable

pytestmark = pytest.mark.skipif(executable() is None, reason="no Chromium on PATH")
HOSTILE = "<img src=x onerror=alert(1)>.png"


class Tokens(nn.Module):
    """Self-attention with three heads over the positions of a map."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 3, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).mT
        return self.attention(tokens, tokens, tokens)[0].mT.view_as(x)


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    context = gcnet.create_block("gc", 3, reduction=1)
    model = nn.Sequential(OrderedDict(nl=NonLocal(3, reduction=1), gc=context, mha=Tokens()))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.5)
    return gcnet.analyze(model, [(torch.rand(4, 3, 8, 10), torch.tensor([0, 1, -1, 0]))])


@pytest.fixture(scope="module")
def report(found, tmp_path_factory):
    kept = [
        KeptImage(**{**vars(image), "name": f"{n}{HOSTILE}", "label": HOSTILE}) for n, image in enumerate(found.kept)
    ]
    found.kept[:] = kept
    path = tmp_path_factory.mktemp("report") / "report.html"
    found.save(path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def block_of(found, name):
    return [row["block"] for row in found.table].index(name)


def shown(browser):
    """Names of image and block, number of the head, row and column, of what the page says it shows."""
    return browser.value(
        "[state.image, data.blocks[state.block].name, state.head, ...nearest(grids[state.block], state.at)]"
    )


@pytest.mark.parametrize("name", ["nl", "gc", "mha.attention"])
def test_the_script_reads_every_map_as_it_was_kept(browser, report, found, name):
    browser.open(report, f"#image=2&block={name}")
    grid = found.kept[1].grids[name]
    block = block_of(found, name)
    rows = "({heads, p, row}) => [...Array(heads).keys()].map(h => [...Array(p).keys()].map(i => [...row(h, i)]))"
    maps = torch.tensor(browser.value(f"({rows})(grids[{block}])"))
    torch.testing.assert_close(maps, grid.maps(), atol=0.003, rtol=0)
    mean = torch.tensor(browser.value(f"[...mapOf(grids[{block}], -1, 0)]"))
    torch.testing.assert_close(mean, grid.maps()[:, 0].mean(0), atol=0.003, rtol=0)
    everywhere = torch.tensor(browser.value(f"[...meanOf(grids[{block}], {len(maps) - 1})]"))
    torch.testing.assert_close(everywhere, grid.maps()[-1].mean(0), atol=0.003, rtol=0)
    assert browser.log == []


def test_the_brightest_pixel_is_the_key_with_most_weight(browser, report, found):
    browser.open(report, "#image=1&block=nl&query=3,7")
    weights = found.kept[0].grids["nl"].maps()[0, 2 * 10 + 6]
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    pixels = torch.tensor(browser.value(f"({read})(document.querySelector('#picker canvas'))")).view(8, 10, 4)
    brightest = pixels[..., :3].sum(2).flatten().argmax()
    assert brightest == weights.argmax()
    assert pixels.flatten(0, 1)[brightest].tolist() == [0xFD, 0xE7, 0x25, 255]
    assert browser.text("#picker ~ .scale") == f"0{float(f'{weights.max():.2g}'):g}"
    assert "queries 8×10 of 8×10 positions, keys 8×10 of 8×10." in browser.text("#grids")


def test_pointing_shows_a_position_for_a_moment_and_a_click_keeps_it(browser, report):
    browser.open(report, "#image=1&block=nl&query=1,1")
    assert "row 1, column 1 of 8×10" in browser.text("#readout")
    before = browser.text("#readout")
    browser.mouse("#picker", (5 + 0.5) / 8, (3 + 0.5) / 10)
    assert "row 6, column 4 of 8×10" in browser.text("#readout")
    browser.mouse("h1")
    assert browser.text("#readout") == before
    browser.mouse("#picker", (5 + 0.5) / 8, (3 + 0.5) / 10, click=True)
    browser.mouse("h1")
    assert "row 6, column 4 of 8×10" in browser.text("#readout")
    assert shown(browser) == [0, "nl", -1, 5, 3]
    assert browser.value("location.hash") == "#image=1&block=nl&query=6%2C4"
    left, top = browser.value(
        "(m => [parseFloat(m.style.left), parseFloat(m.style.top)])(document.querySelector('#picker .mark'))"
    )
    assert (left, top) == pytest.approx((35, 68.75), abs=0.01)


def test_everything_can_be_chosen_with_the_keyboard(browser, report):
    browser.open(report, "#image=1&block=mha.attention&query=4,4")
    seen = []
    for _ in range(9):
        browser.press("Tab")
        seen.append(browser.value("document.activeElement.id || document.activeElement.name"))
    assert seen[:8] == ["sort", "images", "picker", "opacity", "contrast", "beside", "blocks", "heads"]
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.value("document.getElementById('picker').focus()")
    browser.press("ArrowRight", 2)
    browser.press("ArrowUp")
    assert "row 3, column 6" in browser.text("#readout")
    browser.press("ArrowUp", 9)
    assert "row 1, column 6" in browser.text("#readout")
    browser.value("document.querySelector('#heads :checked').focus()")
    browser.press("ArrowRight", 2)
    browser.until("state.head === 1 && document.activeElement.matches('#heads :checked')")
    browser.value("document.querySelector('#blocks :checked').focus()")
    browser.press("ArrowLeft")
    browser.until("data.blocks[state.block].name === 'gc' && document.activeElement.matches('#blocks :checked')")
    assert browser.text("#readout").startswith("One map for all queries.")
    browser.value("document.querySelector('#images :checked').focus()")
    browser.press("ArrowRight")
    browser.until("state.image === 1 && document.activeElement.matches('#images :checked')")
    browser.value("document.getElementById('picker').focus()")  # a block with one map: the step is another block's
    browser.press("ArrowDown")
    assert browser.value("nearest(grids[0], state.at)") == [1, 5]


def test_beside_a_non_local_map_stands_the_one_map_of_gc_or_the_mean_of_all(browser, report, found):
    browser.open(report, "#image=1&block=nl&query=2,2")
    assert browser.value("beside.selectedOptions[0].text") == "gc"
    assert "One map for all queries." in browser.text("#second ~ .readout")
    own, other = found.kept[0].grids["nl"].maps()[0, 11], found.kept[0].grids["gc"].maps()[0, 0]
    distance = (1 - torch.cosine_similarity(own, other, dim=0).item()) / 2
    assert f"Distance between the two maps: {distance:.3f}" in browser.text("#second ~ .readout")
    browser.value("beside.value = 'mean', beside.dispatchEvent(new Event('change'))")
    mean = found.kept[0].grids["nl"].maps()[0].mean(0)
    distance = (1 - torch.cosine_similarity(own, mean, dim=0).item()) / 2
    browser.until(f"document.querySelector('#second ~ .readout').textContent.includes('{distance:.3f}')")


def test_images_are_sorted_by_how_query_dependent_they_are(browser, report, found):
    browser.open(report, "#image=3&block=nl")
    values = [image.figures["nl"]["att_cos"] for image in found.kept]
    for order, expected in (
        ("-1", sorted(range(4), key=lambda n: -values[n])),
        ("1", sorted(range(4), key=values.__getitem__)),
    ):
        browser.value(f"sort.value = '{order}', sort.dispatchEvent(new Event('change'))")
        assert browser.value("[...document.querySelectorAll('#images input')].map(i => Number(i.value))") == expected
        numbers = browser.value("[...document.querySelectorAll('#images .number')].map(e => e.textContent)")
        assert numbers == [f"{values[n]:.3f}" for n in expected]
    assert browser.value("document.querySelector('#images :checked').value") == "2"


def test_hostile_names_stay_text(browser, report):
    browser.open(report, "#image=2&block=nl")
    assert (browser.text("#name"), browser.text("#label")) == (f"1{HOSTILE}", f"class {HOSTILE}")
    assert browser.value("document.querySelectorAll('img, [onerror]').length") == 0
    for part in (f"#image=9&block={HOSTILE}&head=x&query=99,a", "#%%%", "#head=7&block=nl&query=-1,0"):
        browser.open(report, part)
        assert shown(browser)[0] == 0
    assert browser.log == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 768, 1280])
def test_the_page_fits_every_width_in_both_themes(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.value("document.scrollingElement.scrollWidth") <= width
    text, page = browser.value("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    brightness = [sum(json.loads(f"[{colour[4:-1]}]")) for colour in (text, page)]
    assert (brightness[0] > brightness[1]) == dark
    assert browser.value("document.getElementById('picker').getBoundingClientRect().width") > 200
    assert browser.log == []


def test_opacity_and_contrast(browser, report):
    browser.open(report, "#image=1&block=gc")
    browser.value("opacity.value = 20, opacity.dispatchEvent(new Event('input'))")
    assert browser.value("getComputedStyle(document.querySelector('#picker canvas')).opacity") == "0.2"
    low = browser.text("#picker ~ .scale")
    assert low.startswith("0")
    browser.mouse("#contrast", click=True)
    assert browser.text("#picker ~ .scale") != low
