"""A model as an ONNX file, through PyTorch's dynamo exporter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gcnet.errors import RewriteError
from gcnet.exporters.program import (
    Dynamic,
    capture,
    check_arguments,
    description,
    dtype_inside,
    named_axes,
    quiet,
    reason_of,
)

OPSET, OPSET_BFLOAT16 = 20, 22  # a Conv takes bfloat16 from 22 on
_LARGEST = 2**31 - 2**20  # bytes; a protobuf message ends at 2 GiB


def export_onnx(
    model: nn.Module, *, input_size: Sequence[int], dynamic: Dynamic = True, dtype: str | None = None
) -> bytes:
    """The model as the content of an ONNX file of opset 20 (bfloat16: 22), made by PyTorch's dynamo exporter.

    The input is called `input`, the output `output` (`output_0`, ... if there are several). What the model says about
    itself is in the file's metadata, see `description`.

    Args:
        model: any module that takes one map; it is not altered, and exported in eval mode.
        input_size: channels and spatial size of the input, for example (3, 224, 224).
        dynamic: True: the file takes any batch and any spatial size; "batch": any batch; False: one image of
            `input_size`.
        dtype: "float32", "float16" or "bfloat16" for weights and arithmetic; None: as the model is.

    Raises:
        RewriteError: an argument is wrong, or the model cannot be exported; the message names the operation.
        ModuleNotFoundError: the extra `export` is not installed.

    Example:
        >>> from torch import nn
        >>> export_onnx(nn.Conv2d(3, 4, 3), input_size=(3, 8, 8), dtype="half")
        Traceback (most recent call last):
            ...
        gcnet.errors.RewriteError: dtype='half' is unknown; use one of 'float32', 'float16', 'bfloat16'
    """
    check_arguments(input_size, dynamic, dtype)
    _need_onnx()
    if _bytes(model, dtype) > _LARGEST:
        raise RewriteError(
            f"the model's weights take {_bytes(model, dtype) / 2**30:.1f} GiB, and an ONNX file ends at 2 GiB; "
            "use dtype='float16', or export a .pt2"
        )
    program = capture(model, input_size, dynamic, dtype)
    outputs = len(program.graph_signature.user_outputs)
    with quiet():
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                dynamic_shapes=(named_axes(input_size, dynamic),) if dynamic else None,
                input_names=["input"],
                output_names=["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)],
                opset_version=OPSET_BFLOAT16 if dtype_inside(model, dtype) == torch.bfloat16 else OPSET,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors are private classes
            raise RewriteError(f"the model cannot be exported to ONNX: {reason_of(error)}; try a .pt2 file") from error
    assert converted is not None
    converted.model.metadata_props.update(description(model, input_size, dynamic, dtype))
    return converted.model_proto.SerializeToString()


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{error.name} is not installed, which ONNX files need: pip install "gcnet[export]"', name=error.name
        ) from None


def _bytes(model: nn.Module, dtype: str | None) -> int:
    itemsize = dtype_inside(model, dtype).itemsize
    return sum(tensor.numel() * itemsize for tensor in (*model.parameters(), *model.buffers()))
