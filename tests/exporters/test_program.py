"""export_onnx and export_program: files that compute what the model computes, at other batches and sizes too."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models import resnet

import gcnet
from gcnet.exporters.check import CannotRun, check_onnx, check_program, shapes
from gcnet.exporters.onnx import export_onnx
from gcnet.exporters.program import export_program
from gcnet.ops.nonlocal_attention.sorted_prefix import ReluSum, relu_sum_for_export
from gcnet.rewrites import RewriteError
from gcnet.surgery import record

GUIDE = Path(__file__).parents[2] / "docs" / "guide-export.md"


def tiny(block, **options):
    """A stem, a residual unit and a head, with an awake block on the unit's output."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    plain = nn.Sequential(stem, resnet.BasicBlock(16, 16), head)
    model = gcnet.insert(plain, block, at="1", **options)
    for inserted in gcnet.inserted(model).values():
        for parameter in inserted.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    model = tiny("gc", reduction=4)
    record.set_classes(model, ["a", "b", "c", "d", "été"])
    record.set_preprocessing(model, {"size": [32, 32], "mean": [0.5] * 3})
    return model


@pytest.fixture(scope="module")
def content(model):
    return export_onnx(model, input_size=(3, 32, 32))


@pytest.fixture(scope="module")
def program(model):
    return export_program(model, input_size=(3, 32, 32))


def test_onnxruntime_gives_what_pytorch_gives_at_any_batch_and_size(model, content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("input", ["batch", 3, "height", "width"])]
    assert [o.name for o in session.get_outputs()] == ["output"]
    for shape in ((1, 3, 32, 32), (5, 3, 17, 64)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = model(x)
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


def test_the_comparison_measures_two_inputs_and_notices_another_model(model, content):
    agreement = check_onnx(content, model, input_size=(3, 32, 32))
    assert list(agreement.errors) == [(1, 3, 32, 32), (3, 3, 64, 96)]
    assert 0 < max(agreement.errors.values()) < 1e-5
    assert set(agreement.allowed.values()) == {1e-4}
    assert agreement.runtime == f"onnxruntime {onnxruntime.__version__}"
    with pytest.raises(RewriteError, match=r"differs from PyTorch at 1x3x32x32: .* allowed is 1.0e-04"):
        check_onnx(content, tiny("gc", reduction=2), input_size=(3, 32, 32))


def test_a_nan_is_not_agreement(model, content):
    broken = tiny("gc", reduction=4)
    broken[2][2].weight.data[0, 0] = torch.nan
    with pytest.raises(RewriteError, match="differs from PyTorch at 1x3x32x32: nan"):
        check_onnx(content, broken, input_size=(3, 32, 32))


def test_onnx_metadata_describe_the_model(model, content):
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 20
    found = {entry.key: json.loads(entry.value) for entry in proto.metadata_props if entry.key.startswith("gcnet.")}
    assert set(found) == {"gcnet." + key for key in ("version", "architecture", "preprocessing", "classes", "export")}
    assert found["gcnet.version"] == gcnet.__version__
    assert found["gcnet.classes"] == record.classes(model)
    assert found["gcnet.preprocessing"] == record.preprocessing(model)
    assert found["gcnet.architecture"] == {"name": "Sequential", "rewrites": record.rewrites(model)}
    assert found["gcnet.export"]["input"] == ["batch", 3, "height", "width"]
    assert found["gcnet.export"]["dtype"] == found["gcnet.export"]["input_dtype"] == "float32"


def test_files_hold_no_path_of_the_machine_that_wrote_them(content, program):
    for file in (content, program):
        assert str(Path(torch.__file__).parent).encode() not in file
        assert str(Path(gcnet.__file__).parent).encode() not in file


def test_a_pt2_file_opens_without_gcnets_help(model, program):
    extra = {"gcnet.classes": "", "gcnet.preprocessing": ""}
    loaded = torch.export.load(io.BytesIO(program), extra_files=extra).module()
    x = torch.randn(5, 3, 17, 64)
    torch.testing.assert_close(loaded(x), model(x))
    assert json.loads(extra["gcnet.classes"]) == record.classes(model)
    agreement = check_program(program, model, input_size=(3, 32, 32))
    assert max(agreement.errors.values()) < 1e-6
    with pytest.raises(RewriteError, match="differs from PyTorch"):
        check_program(program, tiny("gc", reduction=2), input_size=(3, 32, 32))


def test_a_model_in_training_mode_is_exported_in_eval_mode_and_left_alone(model):
    training = tiny("gc", reduction=4).train()
    before = {key: value.clone() for key, value in training.state_dict().items()}
    file = export_program(training, input_size=(3, 32, 32), dynamic=False)
    assert training.training
    assert all(torch.equal(value, before[key]) for key, value in training.state_dict().items())
    assert check_program(file, model, input_size=(3, 32, 32), dynamic=False).errors[(1, 3, 32, 32)] < 1e-6


def test_one_size_and_one_image_on_request(model):
    for dynamic, axes in (("batch", ["batch", 3, 32, 32]), (False, [1, 3, 32, 32])):
        extra = {"gcnet.export": ""}
        file = export_program(model, input_size=(3, 32, 32), dynamic=dynamic)
        program = torch.export.load(io.BytesIO(file), extra_files=extra)
        assert json.loads(extra["gcnet.export"])["input"] == axes
        (x,) = (node.meta["val"] for node in program.graph.nodes if node.name == "input")
        assert [type(size) is int for size in x.shape] == [dynamic is False, True, True, True]
    assert shapes((3, 32, 32), False) == [(1, 3, 32, 32)]
    assert shapes((3, 32, 32), "batch") == [(1, 3, 32, 32), (3, 3, 32, 32)]
    assert shapes((3, 8, 32, 32), True)[1] == (3, 3, 16, 96, 128)


def test_half_precision_stays_inside_the_file():
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    keywords = {"input_size": (3, 8, 8), "dynamic": False}
    file = export_onnx(conv, **keywords, dtype="float16")
    proto = onnx.load_from_string(file)
    assert {t.data_type for t in proto.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    agreement = check_onnx(file, conv, **keywords, dtype="float16")
    assert 1e-5 < agreement.errors[(1, 3, 8, 8)] <= agreement.allowed[(1, 3, 8, 8)] < 5e-3
    assert conv[0].weight.dtype == torch.float32

    file = export_onnx(conv.bfloat16(), **keywords)  # None: as the model is
    onnx.checker.check_model(onnx.load_from_string(file), full_check=True)
    with pytest.raises(CannotRun, match=r"onnxruntime cannot load .* NOT_IMPLEMENTED"):
        check_onnx(file, conv, **keywords)
    file = export_program(conv, **keywords)
    assert 1e-4 < check_program(file, conv.float(), **keywords, dtype="bfloat16").errors[(1, 3, 8, 8)] < 5e-2


class Searches(nn.Module):
    def forward(self, x):
        return torch.searchsorted(x.flatten(1).sort(dim=1).values, x.flatten(1)).float()


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Multiples(nn.Module):
    def forward(self, x):
        if x.shape[3] % 7:
            raise ValueError("the width must be one of the multiples of 7")
        return x


def test_what_cannot_be_exported_is_said_with_the_operation(capfd):
    with pytest.raises(RewriteError, match=r"there is no ONNX function for aten\.searchsorted; try a \.pt2 file"):
        export_onnx(Searches(), input_size=(3, 8, 8), dynamic=False)
    with pytest.raises(RewriteError, match=r"cannot be exported with dynamic=False: .*data-dependent"):
        export_program(Branches(), input_size=(3, 8, 8), dynamic=False)
    assert capfd.readouterr() == ("", "")
    file = export_program(Multiples(), input_size=(3, 35, 35))
    with pytest.raises(
        RewriteError, match=r"itself does not take an input of 3x3x67x99, .*multiples of 7.*fix the size"
    ):
        check_program(file, Multiples(), input_size=(3, 35, 35))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"input_size": (3,)}, r"input_size=\(3,\): expected channels and one to three spatial sizes"),
        ({"input_size": (3, 0, 8)}, r"input_size=\(3, 0, 8\)"),
        ({"input_size": (3, 8, 8), "dynamic": "size"}, "dynamic='size' is unknown; use True"),
        ({"input_size": (3, 8, 8), "dtype": "int8"}, "dtype='int8' is unknown; use one of 'float32'"),
    ],
)
@pytest.mark.parametrize("export", [export_onnx, export_program])
def test_wrong_arguments_are_named(export, arguments, match):
    with pytest.raises(RewriteError, match=match):
        export(nn.Conv2d(3, 4, 1), **arguments)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'onnxscript is not installed.*pip install "gcnet\[export\]"'
    ) as caught:
        export_onnx(nn.Conv2d(3, 4, 1), input_size=(3, 8, 8))
    assert caught.value.name == "onnxscript"


def test_weights_beyond_what_an_onnx_file_holds_are_refused_at_once():
    with torch.device("meta"):
        model = nn.Conv2d(30_000, 30_000, 1)
    with pytest.raises(RewriteError, match=r"weights take 3\.4 GiB, and an ONNX file ends at 2 GiB"):
        export_onnx(model, input_size=(30_000, 8, 8))


@pytest.mark.parametrize(("P", "Q"), [(1, 1), (7, 5), (70, 131)])
@pytest.mark.parametrize("ties", [True, False])
def test_the_concatenation_form_for_export_is_that_of_the_definition(P, Q, ties):
    a, b, g = torch.randn(2, P).double(), torch.randn(2, Q).double(), torch.randn(2, Q, 3).double()
    if ties:
        a, b = a.round(decimals=1), b.round(decimals=1)
    a[1] = -9  # queries without a key
    inputs = [t.requires_grad_() for t in (a, b, g)]
    found = relu_sum_for_export(a, b, g, 0.3)
    expected = 0.3 * (a[:, :, None] + b[:, None]).relu() @ g
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, ReluSum.apply(a, b, g, 0.3), rtol=1e-10, atol=1e-12)
    if not ties:  # at a tie the two may choose another subgradient
        grads = (torch.autograd.grad(out.sin().sum(), inputs) for out in (found, expected))
        for mine, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_the_concatenation_form_exports_to_onnx():
    block = gcnet.create_block("nl", 8, pairwise="concatenation")
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    file = export_onnx(block, input_size=(8, 9, 5))
    assert max(check_onnx(file, block, input_size=(8, 9, 5)).errors.values()) < 1e-5
    assert {"TopK", "CumSum"} <= {node.op_type for node in onnx.load_from_string(file).graph.node}


@pytest.mark.parametrize(("size", "axes"), [((8, 12), ["length"]), ((8, 4, 6, 5), ["frames", "height", "width"])])
def test_maps_of_one_and_three_dimensions(size, axes):
    block = gcnet.create_block("gc", 8, reduction=2)
    nn.init.normal_(block.add.expand.weight)
    file = export_program(block, input_size=size)
    assert max(check_program(file, block, input_size=size).errors.values()) < 1e-6
    extra = {"gcnet.export": ""}
    torch.export.load(io.BytesIO(file), extra_files=extra)
    assert json.loads(extra["gcnet.export"])["input"] == ["batch", 8, *axes]


def _table():
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`(?:, `(.*?)`)? \| (\w+) \| (\w+) \| ([\w ]+) \|$", text, re.MULTILINE)
    return {(block, options): tuple(cells) for block, options, *cells in rows}


def test_the_table_of_the_guide_has_every_block():
    blocks = [block for block, _ in _table()]
    assert list(dict.fromkeys(blocks)) == gcnet.list_blocks()
    assert {options for block, options in _table() if block == "nl"} == {
        "",
        *(f'pairwise="{form}"' for form in ("gaussian", "dot_product", "concatenation")),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("block", "options"), list(_table()))
def test_the_table_of_the_guide_is_what_is_found(block, options):
    model = tiny(block, **({"pairwise": options.split('"')[1]} if options else {}))

    def works(export, check, dynamic):
        keywords = {"input_size": (3, 42, 42), "dynamic": dynamic}  # a map of 21 x 21, later of 37 x 53
        try:
            check(export(model, **keywords), model, **keywords)
        except RewriteError:
            return False
        return True

    onnx_cells = ("yes" if works(export_onnx, check_onnx, dynamic) else "no" for dynamic in (True, False))
    sizes = {True: "any size", False: "one size"}
    program = next((cell for d, cell in sizes.items() if works(export_program, check_program, d)), "no")
    assert (*onnx_cells, program) == _table()[block, options]
