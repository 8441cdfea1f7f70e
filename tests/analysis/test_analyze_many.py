"""`analyze` on many images and in several processes: the same figures in constant memory. Maps kept for looking at."""

import math
import resource

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch import nn

import gcnet
from gcnet.analysis.grids import grid_of, picture_of
from gcnet.analysis.intervals import Moments
from gcnet.blocks import NonLocal


def _block(channels=8):
    torch.manual_seed(1)
    block = NonLocal(channels)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block


def test_memory_is_flat_from_10_to_1000_images():
    block = _block(64)

    def peak(images):
        """The process's highest memory so far, MB."""
        torch.manual_seed(0)
        found = gcnet.analyze(block, (torch.randn(10, 64, 6, 6) for _ in range(images // 10)))
        assert found.images == images
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    peak(20)
    few = peak(10)
    assert peak(1000) < few + 4  # kept, the images or the maps of 1000 would be 9 or 10 MB


def test_moments_are_the_mean_and_spread_of_finite_values_by_key_whatever_the_batches():
    values, keys = 1e6 + torch.randn(500, dtype=torch.float64), torch.randint(3, (500,))
    values[7] = math.nan
    whole, parts = Moments(), Moments()
    whole.update(keys, values)
    for start in range(0, 500, 33):
        parts.update(keys[start : start + 33], values[start : start + 33])
    for key in range(3):
        own = values[(keys == key) & values.isfinite()]
        expected = (len(own), own.mean().item(), (own - own.mean()).square().sum().item())
        assert whole.compute()[key] == pytest.approx(expected, rel=1e-9)
        assert parts.compute()[key] == pytest.approx(expected, rel=1e-9)


def test_processes_that_share_the_images_all_get_the_figures_of_all_of_them(tmp_path):
    block, x = _block().double(), torch.randn(9, 8, 4, 4, dtype=torch.float64)  # float32 rounds by the batch's size
    whole = gcnet.analyze(block, x)
    shares = [x[:2], x[2:], x[:0]]
    context = torch.multiprocessing.get_context("fork")  # a new interpreter would spend its seconds importing torch
    processes = [context.Process(target=_share, args=(rank, tmp_path, block, shares[rank])) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for rank in range(3):
        table, verdicts, images = torch.load(tmp_path / f"{rank}.pt")
        assert images == 9
        assert verdicts == whole.verdicts
        assert table.keys() == whole.table[0].keys()
        for name, value in whole.table[0].items():
            assert table[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


def _share(rank, folder, block, images):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    found = gcnet.analyze(block, images)
    verdicts = {name: str(verdict) for name, verdict in found.verdicts.items()}
    torch.save((found.table[0], verdicts, found.images), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_kept_maps_are_those_of_the_grids_queries_with_the_keys_of_a_cell_added_up():
    block, x = _block().double(), torch.randn(3, 8, 24, 20, dtype=torch.float64)
    found = gcnet.analyze(block, x, keep=2)
    assert len(found.kept) == 2
    grid = found.kept[1].grids[""]
    assert (grid.queries, grid.keys, grid.full) == ((16, 16), (16, 16), ((24, 20), (24, 20)))
    theta, phi, _ = block.embed(x[1:2])
    full = gcnet.ops.pairwise_weights(theta, phi, pairwise="embedded_gaussian")[0].detach().view(24, 20, 24, 20)
    maps = grid.maps()
    assert maps.shape == (1, 256, 256)
    row, column = 3, 5  # of the grid: positions 5.25 and 6.875 of the map
    own = full[5, 6]
    bins = own.new_zeros(16, 16)
    for i in range(24):
        for j in range(20):
            bins[i * 16 // 24, j * 16 // 20] += own[i, j]
    torch.testing.assert_close(maps[0, row * 16 + column].view(16, 16), bins.float())
    torch.testing.assert_close(maps.sum(2), torch.ones(1, 256))


def test_factors_are_stored_where_they_are_smaller_and_give_the_same_maps():
    block, x = _block().double(), torch.randn(1, 8, 12, 12, dtype=torch.float64)
    grid = gcnet.analyze(block, x, keep=12).kept[0].grids[""]
    assert grid.stored is None
    theta, phi, _ = block.embed(x)
    expected = gcnet.ops.pairwise_weights(theta, phi, pairwise="embedded_gaussian").float()
    torch.testing.assert_close(grid.maps(), expected, rtol=1e-4, atol=1e-5)


def test_every_block_on_2d_maps_keeps_its_grid_and_the_picture_its_colours():
    model = gcnet.insert(torchvision.models.resnet18(num_classes=3), "gc", stages=["c4"])
    model = gcnet.insert(model, "nl", stages=["c3"], where="last", subsample="after")
    x = torch.rand(2, 3, 64, 128)
    kept = gcnet.analyze(model, x, keep=1).kept
    assert len(kept) == 1
    grids = kept[0].grids
    assert {(g.queries, g.keys) for g in grids.values()} == {((1, 1), (4, 8)), ((8, 16), (4, 8))}
    assert kept[0].picture.shape == (3, 64, 128)
    torch.testing.assert_close(kept[0].picture / 255, x[0], atol=0.003, rtol=0)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.3]
    normalised = (x[0] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(picture_of(normalised, mean, std) / 255, x[0], atol=0.003, rtol=0)
    assert picture_of(torch.randn(1, 600, 300), None, None).shape == (3, 256, 128)


def test_maps_of_other_dimensions_and_of_windows_have_no_grid():
    block = _block()
    assert gcnet.analyze(block, torch.randn(2, 8, 6), keep=1).kept == []
    from gcnet.analysis.readers.attention import Attention

    assert grid_of(Attention(torch.ones(1, 2, 1, 4, 3), torch.ones(1, 2, 1, 4, 3)), 0, (8, 8)) is None
    assert isinstance(block, nn.Module)
