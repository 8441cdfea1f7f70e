"""mmdet's plugins: files with mmcv's own blocks in every place and variant are read, or refused by name."""

import gzip
import json
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gcnet
from gcnet.checkpoints.detectors import build
from gcnet.checkpoints.mmdet import names as mmdet
from gcnet.checkpoints.mmdet.architecture import architecture_of
from gcnet.checkpoints.mmdet.plugins import subsampled
from gcnet.errors import CheckpointError
from gcnet.models.detection import create_detector
from gcnet.models.weights import fill_all
from gcnet.recipes import convert

Plugins = list[dict]
POSITIONS = ("after_conv1", "after_conv2", "after_conv3")
MMDETS = [  # ours: mmdet's, for a Faster R-CNN
    (r"backbone\.body\.", "backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.", r"neck.lateral_convs.\1.conv."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.", r"neck.fpn_convs.\1.conv."),
    (r"rpn\.head\.conv\.0\.0\.", "rpn_head.rpn_conv."),
    (r"rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc6\.", "roi_head.bbox_head.shared_fcs.0."),
    (r"roi_heads\.box_head\.fc7\.", "roi_head.bbox_head.shared_fcs.1."),
    (r"roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
]


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """A narrow Faster R-CNN on a ResNet-50, nothing in it at zero."""
    torch.manual_seed(0)
    narrow = {"base_channels": 8, "fpn_channels": 8, "fc_channels": 16}
    model = create_detector("fasterrcnn_resnet50_fpn", num_classes=5, preset="mmdet", **narrow)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def plugin(kind: str, position: str = "after_conv3", stages: str = "0010", **options) -> dict:
    return {"cfg": {"type": kind} | options, "position": position, "stages": tuple(digit == "1" for digit in stages)}


def blocks_of(model: nn.Module, plugins: Plugins, units=None) -> dict[str, dict[str, nn.Module]]:
    """What mmdet's Bottlenecks build from `plugins`: {"layer3.0.after_conv2": {name: module}}, weights drawn."""
    import mmcv.cnn  # registers the blocks
    from mmcv.cnn.bricks.plugin import build_plugin_layer

    assert mmcv.cnn
    found: dict[str, dict[str, nn.Module]] = {}
    for entry in plugins:
        settings = dict(entry["cfg"])
        postfix = settings.pop("postfix", "")
        for i, on in enumerate(entry["stages"]):
            for k, unit in enumerate(getattr(model.backbone.body, f"layer{i + 1}") if on else ()):
                if units is not None and k not in units:
                    continue
                conv = unit.conv3 if entry["position"] == "after_conv3" else unit.conv2
                name, block = build_plugin_layer(settings, postfix, in_channels=conv.out_channels)
                for parameter in block.parameters():
                    nn.init.normal_(parameter, std=0.1)  # larger ones make a dot product of all positions overflow
                found.setdefault(f"layer{i + 1}.{k}.{entry['position']}", {})[name] = block.eval()
    return found


def file_of(model: nn.Module, blocks: dict[str, dict[str, nn.Module]]) -> dict[str, Tensor]:
    """The tensors under mmdet's names."""
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in MMDETS:
            key = re.sub(f"^{ours}", theirs, key)
        state[key] = value
    for place, named in blocks.items():
        unit = place.rpartition(".")[0]
        for name, block in named.items():
            state |= {f"backbone.{unit}.{name}.{key}": value for key, value in block.state_dict().items()}
    return state


@torch.no_grad()
def maps(model: nn.Module, x: Tensor, blocks: dict[str, dict[str, nn.Module]]) -> list[Tensor]:
    """c2 to c5 of mmdet's ResNet, written by hand, with mmcv's blocks in their places."""
    body = model.backbone.body

    def through(x: Tensor, place: str) -> Tensor:
        for block in blocks.get(place, {}).values():
            x = block(x)
        return x

    x = F.max_pool2d(body.bn1(body.conv1(x)).relu(), 3, 2, 1)
    stages = []
    for i in (1, 2, 3, 4):
        for k, unit in enumerate(body[f"layer{i}"]):
            out = through(unit.bn1(unit.conv1(x)).relu(), f"layer{i}.{k}.after_conv1")
            out = through(unit.bn2(unit.conv2(out)).relu(), f"layer{i}.{k}.after_conv2")
            out = through(unit.bn3(unit.conv3(out)), f"layer{i}.{k}.after_conv3")
            x = (out + (x if unit.downsample is None else unit.downsample(x))).relu()
        stages.append(x)
    return stages


def saved(path, state: dict[str, Tensor], plugins: Plugins | None = None) -> None:
    meta = {} if plugins is None else {"cfg": f"model = { ({'backbone': {'plugins': plugins}})!r}"}
    torch.save({"state_dict": state, "meta": meta | {"mmdet_version": "3.3.0"}}, path)


def assert_same_maps(loaded: nn.Module, expected: list[Tensor], x: Tensor) -> None:
    with torch.no_grad():
        found = list(loaded.backbone.body(x).values())
    for mine, theirs in zip(found, expected, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-5


NL, CONTEXT, GA = "NonLocal2d", "ContextBlock", "GeneralizedAttention"
BN = {"type": "BN"}
VARIANTS: dict[str, Plugins] = {
    **{
        f"context-{pool}-{'-'.join(fusions)}-{position}": [
            plugin(CONTEXT, position, ratio=0.25, pooling_type=pool, fusion_types=fusions)
        ]
        for pool in ("att", "avg")
        for fusions in (("channel_add",), ("channel_mul",), ("channel_add", "channel_mul"))
        for position in POSITIONS
    },
    "context-of-a-ratio-that-does-not-divide": [plugin(CONTEXT, stages="0111", ratio=0.3)],
    **{
        f"nl-{mode}-{pooled}-{position}": [plugin(NL, position, mode=mode, sub_sample=pooled)]
        for mode in ("embedded_gaussian", "dot_product", "gaussian", "concatenation")
        for pooled in (False, True)
        for position in POSITIONS
    },
    "nl-unscaled": [plugin(NL, use_scale=False, mode="embedded_gaussian", stages="0110")],
    "nl-reduced": [plugin(NL, reduction=5, stages="0011")],
    "nl-norm": [plugin(NL, "after_conv2", norm_cfg=BN, mode="dot_product")],
    **{
        f"ga-{terms}": [plugin(GA, "after_conv2", attention_type=terms, num_heads=4, spatial_range=-1, kv_stride=2)]
        for terms in ("1111", "0010", "1000", "0001", "1010", "1001", "0011", "0101", "1011", "0111", "1101")
    },
    "ga-end-of-the-branch": [plugin(GA, "after_conv3", num_heads=3, kv_stride=1, attention_type="1111")],
    "ga-first": [plugin(GA, "after_conv1", num_heads=2, kv_stride=3, position_embedding_dim=12)],
    "ga-mmcv's-defaults": [plugin(GA, "after_conv2", stages="0011")],
    "each-stage-its-own": [
        plugin(CONTEXT, stages="0100", ratio=1 / 16),
        plugin(NL, stages="0010", mode="dot_product"),
        plugin(GA, "after_conv2", stages="0001", num_heads=8, attention_type="0010"),
    ],
    "three-in-a-unit": [
        plugin(CONTEXT, "after_conv1", stages="0011", ratio=0.25, postfix="_first"),
        plugin(GA, "after_conv2", stages="0011", num_heads=4),
        plugin(CONTEXT, "after_conv3", stages="1111", ratio=0.25, postfix=2),
    ],
    "one-kind-twice": [
        plugin(NL, "after_conv1", mode="embedded_gaussian", sub_sample=True, postfix="a"),
        plugin(NL, "after_conv2", mode="dot_product", postfix="b"),
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_what_mmcv_computes(plain, tmp_path, name):
    torch.manual_seed(1)
    blocks = blocks_of(plain, VARIANTS[name])
    saved(tmp_path / "m.pth", file_of(plain, blocks), VARIANTS[name])
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth")
    assert len(gcnet.inserted(loaded.model)) == sum(map(len, blocks.values()))
    x = torch.randn(1, 3, 96, 64)
    expected = maps(plain, x, blocks)
    assert_same_maps(loaded.model, expected, x)
    assert float((expected[3] - maps(plain, x, {})[3]).norm()) > 1e-3 * float(expected[3].norm()), "it does something"
    assert not [line for line in loaded.architecture["assumed"] if "block" in line or "attention" in line]


@pytest.mark.parametrize("name", ["three-in-a-unit", "each-stage-its-own"])
def test_convert_keeps_places_and_options(plain, tmp_path, name):
    blocks = blocks_of(plain, VARIANTS[name])
    saved(tmp_path / "m.pth", file_of(plain, blocks), VARIANTS[name])
    convert(tmp_path / "m.pth", tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 96, 64)
    assert_same_maps(gcnet.load_checkpoint(tmp_path / "m.safetensors").model, maps(plain, x, blocks), x)


def test_without_a_config_names_and_shapes_tell_what_they_can(plain):
    plugins = [
        plugin(GA, "after_conv2", stages="0011", num_heads=8, attention_type="1111"),
        plugin(CONTEXT, "after_conv3", stages="0100", ratio=0.25),
        plugin(NL, "after_conv2", stages="0100", mode="gaussian", sub_sample=True),
    ]
    state = file_of(plain, blocks_of(plain, plugins))
    tensors = mmdet.translate(state)
    found = architecture_of(tensors, {}, subsampled=subsampled(state, {}))
    by_block = {call["block"]: call for call in found.inserts}
    assert by_block["gc"] == {"block": "gc", "reduction": 4, "position": "after_1x1", "stages": ["c3"], "where": "all"}
    assert by_block["nl"]["subsample"] == "after"
    assert by_block["ga"] == {
        "block": "ga",
        "terms": "1111",
        "heads": 8,
        "kv_stride": 2,
        "position": "after_3x3",
        "stages": ["c4", "c5"],
        "where": "all",
    }
    blocks = [line for line in found.assumed if "block" in line or "attention" in line]
    assert blocks == [
        "position of the nonlocal_block plugins in c3: after_conv2",
        *(
            line
            for stage in ("c4", "c5")
            for line in (
                f"attention_type of the generalized attention in {stage}: 1111",
                f"num_heads of the generalized attention in {stage}: 8",
                f"kv_stride of the generalized attention in {stage}: 2",
                f"position of the gen_attention_block plugins in {stage}: after_conv2",
            )
        ),
    ]
    fill_all(build(found), tensors)


def test_where_both_ends_of_a_unit_are_as_wide_the_published_place_is_assumed():
    """ResNeXt 64x4d: the channels of a block do not tell where it sits."""
    with torch.device("meta"):
        model = create_detector("fasterrcnn_resnext101_64x4d_fpn", num_classes=5, preset="mmdet")
        blocks = blocks_of(
            model, [plugin(CONTEXT, ratio=1 / 16), plugin(GA, "after_conv2", stages="0001", num_heads=8)]
        )
    found = architecture_of(mmdet.translate(file_of(model, blocks)), {})
    assert [(call["block"], call["position"]) for call in found.inserts] == [("gc", "after_1x1"), ("ga", "after_3x3")]
    for line in ("context_block plugins in c4: after_conv3", "gen_attention_block plugins in c5: after_conv2"):
        assert f"position of the {line}" in found.assumed


def test_heads_that_do_not_divide_are_mmcvs_nine(plain):
    state = file_of(plain, blocks_of(plain, [plugin(GA, "after_conv2", attention_type="0010")]))  # 27 of 32 channels
    found = architecture_of(mmdet.translate(state), {})
    assert found.inserts[0]["heads"] == 9
    assert "attention_type" not in "".join(found.assumed), "the tensors tell it"


def test_the_names_and_configs_of_2019(plain, tmp_path):
    """Blocks under `gcb` and `gen_attention`, the latter in chosen units; heads without `roi_head`."""
    attention = plugin(GA, "after_conv2", num_heads=4, attention_type="0010", kv_stride=3)
    context = plugin(CONTEXT, "after_conv3", stages="0111", ratio=0.25)
    blocks = blocks_of(plain, [attention], units=(0, 2))
    for place, named in blocks_of(plain, [context]).items():
        blocks.setdefault(place, {}).update(named)
    state = {}
    for key, value in file_of(plain, blocks).items():
        value = value.roll(1, 0) if ".fc_cls." in key else value
        value = torch.cat([torch.zeros_like(value[:4]), value]) if ".fc_reg." in key else value
        state[key.replace("roi_head.", "")] = value
    text = f"""
model = dict(
    backbone=dict(
        gcb=dict(ratio=1. / 4.),
        stage_with_gcb=(False, True, True, True),
        gen_attention={ {k: v for k, v in attention["cfg"].items() if k != "type"} },
        stage_with_gen_attention=[[], [], [0, 2], []],
        norm_eval=False))
"""
    torch.save({"state_dict": state, "meta": {"config": text, "mmdet_version": "1.0rc1"}}, tmp_path / "m.pth")
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth")
    x = torch.randn(1, 3, 96, 64)
    assert_same_maps(loaded.model, maps(plain, x, blocks), x)
    names = [name for name in gcnet.inserted(loaded.model) if name.endswith("context_after_3x3")]
    assert names == [f"backbone.body.layer3.{k}.context_after_3x3" for k in (0, 2)]
    assert not [line for line in loaded.architecture["assumed"] if "block" in line or "generalized" in line]


def test_dropblock_is_left_out_and_said_so(plain):
    plugins = [plugin("mmdet.DropBlock", drop_prob=0.1), plugin("mmcv.ContextBlock", ratio=0.25)]
    state = file_of(plain, blocks_of(plain, [plugin(CONTEXT, ratio=0.25)]))
    config = {"model": {"backbone": {"plugins": plugins}}}
    found = architecture_of(mmdet.translate(state, config), config)
    assert len(found.inserts) == 1
    assert "without DropBlock, which acts in training only" in found.assumed


@pytest.mark.parametrize(
    ("plugins", "told", "message"),
    [
        (
            [plugin(CONTEXT, ratio=0.25), plugin(NL)],
            None,
            r"two blocks at one place: layer3\.0\.context_block and layer3\.0\.nonlocal_block, both at after_conv3",
        ),
        (
            [plugin(GA, "after_conv2", attention_type="1100")],
            None,
            "attention_type='1100' in c4: without the fourth term mmcv mixes up rows and columns",
        ),
        (
            [plugin(GA, "after_conv2", attention_type="1011", num_heads=4)],
            {"attention_type": "0010"},
            "attention_type='0010' in c4, the tensors are of 0111 or 1011 or 1111",
        ),
        ([plugin(GA, "after_conv2", num_heads=4)], {"q_stride": 2}, r"GeneralizedAttention .*: q_stride=2 \(gcnet: 1"),
        ([plugin(GA, "after_conv2", num_heads=4)], {"position_magnitude": 3}, "position_magnitude=3"),
        ([plugin(GA, "after_conv2", num_heads=4)], {"spatial_range": 2}, r"spatial_range=2 \(gcnet: -1\)"),
        ([plugin(NL)], {"conv_cfg": {"type": "DCN"}}, r"NonLocal2d .*: conv_cfg\.type='DCN'"),
        ([plugin(NL, norm_cfg=BN)], {"norm_cfg": {"type": "BN", "eps": 0.1}}, r"norm_cfg\.eps=0\.1"),
        ([plugin(NL, norm_cfg={"type": "GN", "num_groups": 2})], None, r"nonlocal_block\.conv_out\.gn\.weight"),
        ([plugin(NL)], {"mode": "gaussian"}, "mode='gaussian' in c4, where the tensors are of another mode"),
        ([plugin("ConvModule", out_channels=128, kernel_size=1)], None, "puts a 'ConvModule' into the backbone at"),
        (
            [plugin("MaxPool2d", kernel_size=3)],
            None,
            "'MaxPool2d' .*; gcnet reads ContextBlock, NonLocal2d and Gen|Max",
        ),
    ],
)
def test_what_gcnet_does_not_have_is_refused_by_name(plain, tmp_path, plugins, told, message):
    known = [entry for entry in plugins if entry["cfg"]["type"] in (CONTEXT, NL, GA)]
    state = file_of(plain, blocks_of(plain, known))
    written = [entry | {"cfg": entry["cfg"] | (told or {})} for entry in plugins]
    saved(tmp_path / "m.pth", state, written)
    with pytest.raises(CheckpointError, match=message):
        gcnet.load_checkpoint(tmp_path / "m.pth")


def test_files_that_contradict_their_config_or_themselves_are_refused(plain):
    entry = plugin(CONTEXT, "after_conv2", ratio=0.25)
    state = file_of(plain, blocks_of(plain, [entry]))

    def config(**other) -> dict:
        return {"model": {"backbone": {"plugins": [entry | other]}}}

    with pytest.raises(
        CheckpointError, match=r"layer3\.0\.context_block sees 32 channels; at after_conv3 there are 128"
    ):
        mmdet.translate(state, config(position="after_conv3"))
    with pytest.raises(CheckpointError, match="blocks of which the file has no tensors: context_block in c5"):
        mmdet.translate(state, config(stages=(False, False, True, True)))
    state["backbone.layer3.0.gen_attention_block.local_constraint_map"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"layer3\.0\.gen_attention_block looks at a neighbourhood only"):
        mmdet.translate(state)
    del state["backbone.layer3.0.gen_attention_block.local_constraint_map"]
    with pytest.raises(CheckpointError, match=r"of no layer .*layer3\.0\.context_block\.conv_extra\.weight"):
        mmdet.translate(state | {"backbone.layer3.0.context_block.conv_extra.weight": torch.zeros(1)})


@pytest.mark.parametrize("deformable", [False, True])
@pytest.mark.parametrize("terms", ["1111", "0010"])
def test_the_published_empirical_attention_models_are_recognised_built_and_filled(shared, terms, deformable):
    """Full size, from mmdet's own list of the plain Faster R-CNN and mmcv's plugins, with and without the config."""
    with gzip.open(shared / "fixtures/full/faster-rcnn_r50_fpn_1x_coco.keys.json.gz") as file:
        listed = json.load(file)
    state = {key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()}
    entry = plugin(GA, "after_conv2", "0011", spatial_range=-1, num_heads=8, attention_type=terms, kv_stride=2)
    with torch.device("meta"):
        blocks = blocks_of(create_detector("fasterrcnn_resnet50_fpn", num_classes=80), [entry])
    state |= {
        f"backbone.{place.removesuffix('.after_conv2')}.{name}.{key}": value
        for place, named in blocks.items()
        for name, block in named.items()
        for key, value in block.state_dict().items()
    }
    if deformable:
        for key, value in list(state.items()):
            if re.search(r"backbone\.layer[234]\.\d+\.conv2\.weight", key):
                offset = key.replace("conv2.", "conv2.conv_offset.")
                state[offset] = torch.empty(18, value.shape[1], 3, 3, device="meta")
                state[offset.replace("weight", "bias")] = torch.empty(18, device="meta")
    model = {"backbone": {"plugins": [entry]}}
    inserts = []
    for config in ({"model": model}, {}):
        tensors = mmdet.translate(state, config)
        found = architecture_of(tensors, config)
        with torch.device("meta"):
            net = build(found)
        fill_all(net, tensors)
        assert sum(p.numel() for p in net.parameters()) == sum(
            v.numel() for k, v in state.items() if not re.search(r"running_|num_batches", k)
        )
        assert (found.deform is not None) == deformable
        assert len(gcnet.inserted(net)) == 6 + 3
        inserts.append(found.inserts)
    assert inserts[0] == inserts[1] != []
    assert inserts[0][0]["terms"] == terms
