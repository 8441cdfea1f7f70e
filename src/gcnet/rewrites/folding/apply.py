"""`fold`: a trained model in, the same function out with norms and context blocks merged into the convolutions."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gcnet.blocks import NonLocal
from gcnet.errors import RewriteError
from gcnet.rewrites.folding.dataflow import Dataflow
from gcnet.rewrites.folding.layers import ContextThenConv, FoldedBlock, FoldedContext, keep_in_eval
from gcnet.rewrites.folding.norms import check_norms, is_grouped_transpose, merge_norm, merge_own_norm, unfreeze
from gcnet.surgery import record
from gcnet.surgery.eager import check_model
from gcnet.surgery.families import RESNET_UNITS
from gcnet.surgery.frames import small_images
from gcnet.surgery.labels import label
from gcnet.surgery.narrow import CONTEXT_BLOCKS, is_pointwise
from gcnet.surgery.places import carry_hooks, detach, has_hooks, parameter_holders, replace
from gcnet.surgery.probe import evaluating, example_arguments, example_input
from gcnet.surgery.same_outputs import check_same


def fold(model: nn.Module, example: Any = None) -> nn.Module:
    """Return a copy of a trained model, for inference only, in which context costs next to nothing.

    - Every convolution swallows the batch norm behind it.
    - A context block behind a 1x1 convolution that widens its input takes its context from the narrow map and joins
      the convolution: as its bias (`add`) or on its rows (`scale`).
    - A block before a 1x1 convolution (SE in EfficientNet) joins that one's input channels and bias.
    - Any other context block writes into its map instead of a new one. Non-local blocks merge their own norm.
    - Residual units of torchvision's and timm's ResNet take addition and ReLU along.

    Layers are found in one forward pass: two are merged only where nothing else reads what passes between them. The
    result is run beside the model and must give the same. Names outside of merged layers do not change.

    Args:
        model: in eval mode.
        example: its input, or a tuple of positional inputs; random if None. For torchvision's detectors a batch of
            images.

    Returns:
        A new model in eval mode. Its `train(True)` raises.

    Raises:
        RewriteError: a norm in training mode or without running statistics, a tied weight or a hook among what would
            be merged, or outputs that differ by more than 1e-4 (float32; 2-norm), with the worst layer named.
        TypeError: a model that is compiled, scripted or wrapped.

    Example:
        >>> import gcnet, torchvision
        >>> model = gcnet.insert(torchvision.models.resnet18(), "gc").eval()
        >>> images = torch.randn(2, 3, 64, 64)
        >>> torch.allclose(fold(model)(images), model(images), atol=1e-4)
        True
    """
    arguments = _arguments(model, example)
    folded = _fold(model, arguments)
    check_same(model, folded, arguments, "fold")
    return folded


def replay(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Do a `fold` on record again: only the structure, since outputs at random weights say nothing about the file's."""
    example = example_input(model) if record.architecture(model) is not None else None
    with evaluating(model):
        return _fold(model, _arguments(model, example))


def _arguments(model: nn.Module, example: Any) -> tuple[Any, ...]:
    """The inputs of the passes that are to come, once it is clear that the model can be folded at all."""
    check_model(model)
    check_norms(model)
    with small_images(model):
        return example_arguments(model, example)


def _fold(model: nn.Module, arguments: tuple[Any, ...]) -> nn.Module:
    result = unfreeze(copy.deepcopy(model).eval())
    blocks: dict[str, Any] = {name: block for name, block in result.named_modules() if type(block) in CONTEXT_BLOCKS}
    flow = Dataflow(result, blocks)
    with small_images(result):
        flow.run(result, tree_map_only(Tensor, torch.clone, arguments))
    tied = _tied(result)

    merged: dict[nn.Module, nn.Module] = {}
    behind: dict[str, str] = {}  # a norm that was merged: the convolution that swallowed it
    for name, layer in flow.layers.items():
        norm = flow.only_reader(name) if layer.kind == "conv" else None
        if norm is not None and flow.layers[norm].kind == "norm":
            if is_grouped_transpose(result.get_submodule(name)):
                continue
            _check_free(result, tied, name, norm)
            merged[result.get_submodule(norm)] = merge_norm(result.get_submodule(name), result.get_submodule(norm))
            behind[norm] = name
    result = replace(result, merged)
    for name, block in blocks.items():
        if name in flow.layers and block.as_tensors() is not None:  # else a layer of it has to be called
            _check_free(result, tied, name)
            _merge_block(result, flow, behind, tied, name, block)
    for module in list(result.modules()):
        if isinstance(module, NonLocal):
            merge_own_norm(module)
    if any(label(type(module)) in RESNET_UNITS for module in result.modules()):
        from gcnet.rewrites.folding.units import join_shortcuts  # here, since it imports torchvision and timm

        result = join_shortcuts(result)
    record.add_rewrite(result, {"rewrite": "fold"})
    keep_in_eval(result)
    return result


def _tied(model: nn.Module) -> dict[str, str]:
    """For each module with a parameter that another module holds too: the other's name."""
    holders = parameter_holders(model)
    return {name: other for names in holders.values() for name in names for other in names if other != name}


def _check_free(model: nn.Module, tied: dict[str, str], *names: str) -> None:
    """Raise if a layer that is to be merged shares a parameter, or carries a hook of a user's."""
    for name, other in tied.items():
        if any(f"{name}.".startswith(f"{merged}.") for merged in names):
            raise RewriteError(
                f"{name!r} shares a parameter with {other!r}, so it cannot be merged into another layer; give each "
                "its own copy of the weight first"
            )
    for name in names:
        if has_hooks(model.get_submodule(name), own=False):
            raise RewriteError(
                f"{name!r} carries a hook, which would see another tensor once it is merged; remove it, fold, and "
                "register it where the folded model has what you look for"
            )


def _merge_block(
    model: nn.Module, flow: Dataflow, behind: dict[str, str], tied: dict[str, str], name: str, block: Any
) -> None:
    sources = set(flow.layers[name].sources)
    source = sources.pop() if len(sources) == 1 else ""
    conv_name = behind.get(source, source)
    is_conv = conv_name in flow.layers and flow.layers[conv_name].kind == "conv"
    conv: Any = model.get_submodule(conv_name) if is_conv else None
    if is_pointwise(conv) and conv.in_channels <= conv.out_channels and flow.only_reader(source) == name:
        _take_out(model, name, block, conv, FoldedContext(conv, block))
        return
    if not flow.owns_input(name):
        return
    reader = flow.only_reader(name)
    following: Any = model.get_submodule(reader) if reader is not None and flow.layers[reader].kind == "conv" else None
    if is_pointwise(following):
        _check_free(model, tied, str(reader))
        _take_out(model, name, block, following, ContextThenConv(block, following))
    else:
        folded = FoldedBlock(block).eval()
        record.carry(block, folded)
        replace(model, {block: folded})


def _take_out(model: nn.Module, name: str, block: nn.Module, conv: nn.Module, new: nn.Module) -> None:
    """Let `new` do what the block and the convolution did."""
    detach(model, name)  # first, since the convolution may be what carries the block
    carry_hooks(conv, new.eval())
    replace(model, {conv: new, block: nn.Identity().eval()})  # the block, where it stands under a second name
