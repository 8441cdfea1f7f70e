"""The demo on a handful of scenes: two comparisons, one page."""

import sys
from dataclasses import replace

import pytest

from gcnet.recipes.comparison import compare
from gcnet.scenes import source as sources
from gcnet.scenes.demo import BLOCKS, demo, plan

demo_module = sys.modules["gcnet.scenes.demo"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def one_epoch(**options):
        settings, seeds = plan(**options)
        return {task: replace(own, epochs=1, batch_size=16) for task, own in settings.items()}, seeds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SCENE_COUNTS", {"train": 32, "val": 8, "test": 16})
        patch.setattr(demo_module, "plan", one_epoch)
        patch.setattr(demo_module, "compare", lambda own, **options: compare(own, **{**options, "cost_rounds": 1}))
        first = demo(quick=True, runs=folder, progress=False)
    return folder, first


def test_both_tasks_are_compared_over_all_blocks(shown):
    folder, first = shown
    assert list(first.comparisons) == ["cue", "mirror"]
    for task, comparison in first.comparisons.items():
        assert tuple(row.label for row in comparison.rows) == BLOCKS
        assert comparison.folder == folder / "demo" / "quick" / task
        assert comparison.settings.data.path == task
        assert all(set(row.accuracies) == {0} for row in comparison.rows)


def test_the_page_shows_tables_scenes_and_what_it_means(shown):
    folder, first = shown
    assert first.page == folder / "demo" / "report.html"
    page = first.page.read_text(encoding="utf-8")
    assert first.meaning in page
    for name in BLOCKS:
        assert page.count(f"<td>{name}</td>") >= 2
    assert page.count("<figure>") == 2 + 1  # the accuracies of each task, the times
    assert page.count('<img src="data:image/png;base64,') == 3 + 2 * 2 * (1 + len(BLOCKS))
    assert page.count(" of 15 right</div>") == 2 * len(BLOCKS)  # cue: the corner does not count
    assert page.count(" of 16 right</div>") == 2 * len(BLOCKS)


def test_quick_and_full_and_fashion_do_not_share_runs():
    quick, one = plan(quick=True)
    full, three = plan()
    fashion, _ = plan(items="fashion")
    assert (one, three) == (1, 3)
    assert quick == full  # the seeds make the difference
    assert fashion["mirror"].data.path == "mirror/fashion"
