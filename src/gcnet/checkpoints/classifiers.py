"""Files of classifiers of torchvision and timm: the name whose model has exactly their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch

from gcnet.checkpoints.content import Adapter, Built, Content
from gcnet.errors import CheckpointError, some
from gcnet.models.catalogue import CATALOGUE
from gcnet.models.create import plain_model, sketch
from gcnet.models.weights import counters, fill_all, head_keys

# A tensor that all models of a kind have, and their names here: to build all models and compare takes many seconds.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("layer1.0.conv1.weight", ("resn*", "wide_resnet*", "timm/resn*", "timm/seresn*")),
    ("stages.0.0.conv1_1x1.conv.weight", ("timm/*ts", "timm/gcres*")),
    ("conv_stem.weight", ("timm/*efficientnet*", "timm/mobilenet*")),
    ("stages.0.blocks.0.conv_dw.weight", ("timm/convnext*",)),
    ("s1.b1.conv1.conv.weight", ("timm/regnet*",)),
    ("trunk_output.block1.block1-0.f.a.0.weight", ("regnet*",)),
    ("encoder.layers.encoder_layer_0.ln_1.weight", ("vit_*",)),
    ("stem.0.0.weight", ("maxvit*",)),
    ("features.0.weight", ("alexnet", "squeezenet*", "vgg*")),
    ("features.0.0.weight", ("convnext*", "efficientnet*", "mobilenet*", "swin*")),
    ("features.conv0.weight", ("densenet*",)),
    ("conv1.0.weight", ("shufflenet*",)),
)
_FAMILIES = ("*gcres*", "resnet*", "resnext*", "seresnet*", "seresnext*")  # of timm, beside what gcnet recommends


def is_classifier(keys: Mapping[str, object]) -> bool:
    """Whether these may be names of a classifier of torchvision or of one of timm's that are looked at."""
    return any(mark in keys for mark, _ in _KINDS)


def build(content: Content) -> Built:
    """The model of `create_model` that has these tensors, with as many classes.

    Raises:
        CheckpointError: no model of the list has these tensors; the one that comes closest is named.
    """
    state = content.tensors
    closest, most = "", -1
    for name in _candidates(state):
        model = sketch(name, 1000, {})
        own = model.state_dict()
        head = head_keys(model)
        wanted = own.keys() - counters(own)
        common = sum(key in state and own[key].shape == state[key].shape for key in own)
        closest, most = (name, common) if common > most else (closest, most)
        rows = {state[key].shape[0] for key in head if key in state and state[key].ndim}
        bodies = all(own[key].shape == state[key].shape for key in own if key in state and key not in head)
        if wanted <= state.keys() <= own.keys() and bodies and len(rows) == 1:
            model = plain_model(name, rows.pop(), {})
            fill_all(model, state)
            assumed = [f"model: {name} (what has no tensors, such as activations and strides, is that model's)"]
            return Built(model, "timm" if name.startswith("timm/") else "torchvision", content.classes, assumed)
    raise CheckpointError(
        f"its {len(state)} tensors are those of no classifier that gcnet recognises: {ADAPTER.source}; {most} of them "
        f"are those of {closest}. They begin with {some(state, 4)}. For another model: "
        "load_checkpoint(path, architecture=model)"
    )


ADAPTER = Adapter("classifiers of torchvision, ResNets of timm", is_classifier, build)


def _candidates(state: Mapping[str, object]) -> Iterator[str]:
    """Names worth a try, the likely ones first; which kind of network it is shows in the names of the tensors."""
    import timm  # here, since it and torchvision take seconds to import
    import torchvision

    patterns = [pattern for mark, patterns in _KINDS if mark in state for pattern in patterns]
    names = [*CATALOGUE, *torchvision.models.list_models(module=torchvision.models)]
    names = [name for name in names if name not in ("googlenet", "inception_v3")]  # with heads that only train
    names += [f"timm/{name}" for family in _FAMILIES for name in timm.list_models(family)]
    for name in dict.fromkeys(names):
        if any(fnmatch(name, pattern) for pattern in patterns):
            yield name
