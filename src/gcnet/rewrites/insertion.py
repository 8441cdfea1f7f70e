"""`insert`: a model in, the same model with context blocks out, its outputs unchanged at the first step."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gcnet.blocks.catalogue import check_options, entry
from gcnet.errors import GcnetTypeError, RewriteError
from gcnet.surgery import families, record
from gcnet.surgery.eager import check_model
from gcnet.surgery.globs import match_modules
from gcnet.surgery.places import Place, attach, is_called, output_of
from gcnet.surgery.probe import example_input, is_channels_last, probe

BuildBlock = Callable[[int], nn.Module]
POSITIONS = ("after_1x1", "after_add", *families.INNER)
WHERES = ("all", "last", "before_last")


def insert(
    model: nn.Module,
    block: str | BuildBlock = "gc",
    *,
    stages: str | Sequence[str] | None = None,
    at: str | Sequence[str] | None = None,
    where: str | int | Sequence[int] | None = None,
    position: str | None = None,
    example: Any = None,
    **block_options: Any,
) -> nn.Module:
    """Return a copy of the model with context blocks in it; its outputs are the same until the blocks have learnt.

    Blocks start as the identity (`fusion="scale"` with `gate="identity"`, unless `gate` is given). Existing parameter
    and buffer names do not change, so weights load before or after. Build the optimiser afterwards.

    Args:
        model: ResNet, ResNeXt, Wide ResNet, RegNet, ConvNeXt, EfficientNet, MobileNet of torchvision or timm, timm
            ByobNet, a detector with such a backbone; any other model with `at`.
        block: A name of `gcnet.list_blocks()`, or any callable `channels -> Module`.
        stages: Names of stages, "c2" to "c5": layer1 to layer4 of a ResNet, elsewhere all units of output stride 4 to
            32. None: the block's own default (c3, c4, c5; for the quadratic blocks c4).
        at: Instead of stages: globs over module names (`*` inside one dotted segment, `**` across any); the block goes
            on each matched module's output.
        where: Which units of each stage: "all", "last", "before_last" (on the input of the stage's last unit) or
            indices, also as text ("-1", "0,2"). None: the block's own default ("all"; for the quadratic blocks
            "before_last").
        position: "after_1x1" (end of the residual branch, after its last norm and layer scale, before drop-path and
            addition) or "after_add" (on the sum; before the unit's last activation in ResNet, ByobNet and RegNet, on
            the unit's output elsewhere). None: "after_1x1". With `where="before_last"` both are the same place. In the
            Bottleneck of a ResNet also "before_3x3" and "after_3x3": inside the branch, behind the activation of the
            first and of the second convolution.
        example: An input for the dummy forward pass that finds strides and channels, where the model's own attributes
            do not tell; guessed if None.
        **block_options: Options of the block, for example `reduction=4`.

    Returns:
        A new model on the same device, in the same dtype, memory format and mode. `gcnet.inserted` lists its blocks.

    Raises:
        RewriteError: the arguments do not fit the model; the message lists what would. The model is untouched.
        TypeError: an option the block does not have, or a model that is compiled, scripted or wrapped.

    Example:
        >>> import torchvision
        >>> model = insert(torchvision.models.resnet18(), "gc", stages=("c4", "c5"), reduction=8)
        >>> list(inserted(model))
        ['layer3.0.context', 'layer3.1.context', 'layer4.0.context', 'layer4.1.context']
    """
    check_model(model)
    build, default_stages, default_where = _builder(block, block_options)
    where = _from_text(where)
    chosen = default_stages if stages is None else (stages,) if isinstance(stages, str) else tuple(stages)
    units = default_where if where is None else where
    _check_places({"stages": stages, "where": where, "position": position}, at, block, units)
    result = copy.deepcopy(model)
    if at is not None:
        places = _places_at(result, at, example)
    else:
        places = _places_in_stages(result, chosen, units, position or "after_1x1", example)
    options: record.Record = {
        "block": block if isinstance(block, str) else None,
        "stages": None if stages is None else list(chosen),
        "at": at if at is None or isinstance(at, str) else list(at),
        "where": where if where is None or isinstance(where, str | int) else list(where),
        "position": position,
        "options": dict(block_options),
    }
    result = _with_blocks(result, places, build)
    record.add_rewrite(result, {"rewrite": "insert", **options})
    return result


def replay(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Do an `insert` on record again; one whose block was a callable cannot be, since the record does not hold it."""
    places = {key: rewrite.get(key) for key in ("stages", "at", "where", "position")}
    example = example_input(model) if places["at"] is not None and record.architecture(model) is not None else None
    return insert(model, rewrite["block"], example=example, **places, **rewrite.get("options", {}))


def inserted(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks that `insert` put into a model, by name, in the model's order (also inside a larger model).

    Raises:
        RewriteError: a block is still in the model but is no longer called, because a tool replaced the module that
            carried it (as `SyncBatchNorm.convert_sync_batchnorm` does with a norm that was chosen by `at`).
    """
    blocks = {name: module for name, module in model.named_modules() if hasattr(module, "gcnet_side")}
    for name, block in blocks.items():
        host = name.rpartition(".")[0]
        if not is_called(model.get_submodule(host), str(block.gcnet_side)):
            raise RewriteError(
                f"the block {name!r} is no longer called: {host!r} was replaced by a new "
                f"{type(model.get_submodule(host)).__name__} after the insertion; insert again into the converted model"
            )
    return blocks


def _check_places(places: Mapping[str, Any], at: Any, block: str | BuildBlock, units: Any) -> None:
    """Raise if stages, where and position do not go together, or with `at`."""
    position = places["position"]
    for name, value in places.items() if at is not None else ():
        if value is not None:
            raise RewriteError(f"{name}={value!r} does not go with at={at!r}: `at` alone says where; leave one out")
    if position is not None and position not in POSITIONS:
        raise RewriteError(f"position={position!r} is unknown; use one of {', '.join(map(repr, POSITIONS))}")
    if position in families.INNER and units == "before_last":
        default = "" if places["where"] else f", the default of {block!r},"
        raise RewriteError(
            f"position={position!r} lies inside a unit, but where='before_last'{default} between two; "
            "give where='all', 'last' or indices"
        )


def _with_blocks(model: nn.Module, places: list[Place], build: BuildBlock) -> nn.Module:
    slots = [place.host for place in places if place.side == "slot"]
    if slots:
        from gcnet.surgery.units import with_slots  # here, since it imports torchvision

        model = with_slots(model, slots)
    for place in places:
        assert place.channels is not None
        attach(model, place, _like(model, place, build(place.channels)))
    return model


def _builder(block: str | BuildBlock, options: dict[str, Any]) -> tuple[BuildBlock, tuple[str, ...], str]:
    """How one block is built, and its default stages and units."""
    if isinstance(block, str):
        known = entry(block)
        check_options(block, options)
        merged = {**known.identity, **options}
        return lambda channels: known.build(channels, **merged), known.stages, known.where
    if not callable(block):
        raise GcnetTypeError(
            f"block={block!r} is a {type(block).__name__}; give a name of list_blocks() or channels -> Module"
        )
    if options:
        raise GcnetTypeError(
            f"options {', '.join(options)} go with a block's name; put them into the callable (functools.partial)"
        )
    return block, ("c3", "c4", "c5"), "all"


def _places_in_stages(model: nn.Module, stages: Sequence[str], where: Any, position: str, example: Any) -> list[Place]:
    found = families.find_stages(model, example)
    listed = ", ".join(f"{stage} ({len(units)} units from {units[0].name})" for stage, units in found.items())
    if not stages:
        raise RewriteError(f"stages=() names no stage; this model has {listed}")
    places: list[Place] = []
    for stage in dict.fromkeys(stages):
        units = found.get(stage)
        if not units:
            raise RewriteError(f"stages: the model has no stage {stage!r}; it has {listed}")
        if where == "before_last":
            places.append(families.place_before(units[-1]))
        else:
            places += [families.place_in(units[i], position) for i in _indices(where, stage, len(units))]
    return places


def _from_text(where: Any) -> Any:
    """The indices in a text such as "-1" or "0,2", as command lines and files of settings have them."""
    if not isinstance(where, str) or not re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*,?", where):
        return where
    numbers = [int(text) for text in where.split(",") if text]
    return numbers if "," in where else numbers[0]


def _indices(where: Any, stage: str, count: int) -> list[int]:
    if where == "all":
        return list(range(count))
    if where == "last":
        return [count - 1]
    numbers = [where] if isinstance(where, int) else where
    if not isinstance(numbers, list | tuple | range) or not all(type(n) is int for n in numbers):
        raise RewriteError(
            f"where={where!r} is unknown; use one of {', '.join(map(repr, WHERES))}, or indices of units"
        )
    if not numbers:
        raise RewriteError(f"where={where!r} names no unit; stage {stage} has units 0 to {count - 1}")
    outside = [n for n in numbers if not -count <= n < count]
    if outside:
        raise RewriteError(f"where={where!r}: stage {stage} has no unit {outside[0]}; its units are 0 to {count - 1}")
    return sorted({n % count for n in numbers})


def _places_at(model: nn.Module, at: str | Sequence[str], example: Any) -> list[Place]:
    """One place per matched module; channels from its own attributes, else from one dummy forward."""
    places = [_with_own_channels(model, output_of(name)) for name in match_modules(model, at)]
    unknown = [place.host for place in places if place.channels is None]
    seen = probe(model, unknown, example).seen if unknown else {}
    for i, place in enumerate(places):
        if place.channels is not None:
            continue
        calls = len(seen[place.host].outputs)
        shapes = set(seen[place.host].outputs)
        kind = type(model.get_submodule(place.host)).__name__
        if not shapes:
            raise RewriteError(f"at: {place.host!r} ({kind}) is not called in a forward pass; choose another module")
        shape = shapes.pop()
        if calls > 1:
            raise RewriteError(
                f"at: {place.host!r} ({kind}) is called {calls} times in one forward pass, so its output is not one "
                "place; choose a module that is called once"
            )
        if shape is None or not 3 <= len(shape) <= 5:
            got = "no tensor" if shape is None else f"shape {shape}"
            raise RewriteError(f"at: {place.host!r} ({kind}) puts out {got}; a block needs a map (B, C, *spatial)")
        places[i] = replace(place, channels=shape[1])
    return places


_MAP_LAYERS: dict[type[nn.Module], str] = {
    nn.modules.conv._ConvNd: "out_channels",
    nn.modules.batchnorm._NormBase: "num_features",
    nn.GroupNorm: "num_channels",
}


def _with_own_channels(model: nn.Module, place: Place) -> Place:
    """The place with the channels its module itself tells: a conv, a norm, or a Sequential that ends in one."""
    module = model.get_submodule(place.host)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        module = module[-1]
    for kind, attribute in _MAP_LAYERS.items():
        if isinstance(module, kind):
            return replace(place, channels=getattr(module, attribute))
    return place


def _like(model: nn.Module, place: Place, block: Any) -> nn.Module:
    """The block in the dtype, memory format and mode of its host, on its device."""
    if not isinstance(block, nn.Module):
        raise GcnetTypeError(f"block returned a {type(block).__name__}; expected a torch.nn.Module")
    host = model.get_submodule(place.host)
    parameters = [*host.parameters(), *model.parameters()]
    like = next((p for p in parameters if p.is_floating_point()), None)
    if like is not None:
        block = block.to(device=like.device, dtype=like.dtype)
    if any(map(is_channels_last, parameters)):
        block = block.to(memory_format=torch.channels_last)
    return block.train(host.training)
