"""The names of detectors; without torchvision, whose detectors take seconds to import."""

import re

from gcnet.errors import GcnetError

KINDS = ("fasterrcnn", "maskrcnn", "cascade_rcnn", "cascade_maskrcnn", "retinanet")
_NAME = re.compile(rf"({'|'.join(KINDS)})_(.+)_fpn")
_SHOWN = ("resnet50", "resnet101", "resnext101_32x4d", "resnext101_64x4d")
DETECTORS: tuple[str, ...] = tuple(f"{kind}_{trunk}_fpn" for kind in KINDS for trunk in _SHOWN)


def is_detector(name: str) -> bool:
    """Whether a name is one that `create_detector` takes, whatever its backbone.

    Example:
        >>> is_detector("maskrcnn_timm/resnet26d_fpn"), is_detector("resnet50")
        (True, False)
    """
    return _NAME.fullmatch(name) is not None


def backbone_name(name: str) -> str:
    """The backbone in a detector's name: `resnet50` of `maskrcnn_resnet50_fpn`."""
    return parsed(name)[1]


def parsed(name: str) -> tuple[str, str]:
    """Kind and backbone in a detector's name.

    Raises:
        GcnetError: it is none.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise GcnetError(
            f"name={name!r} is no detector; names are KIND_BACKBONE_fpn with a kind of {', '.join(KINDS)}, for example "
            "maskrcnn_resnet50_fpn or retinanet_timm/resnet26d_fpn"
        )
    return match[1], match[2]
