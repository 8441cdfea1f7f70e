"""Files of mmdetection 1 to 3 and of the GCNet repository of 2019: names, config, architecture, the model.

| module | what it knows |
|---|---|
| `names` | mmdet's names of tensors in ours, those of 2019 too |
| `plugins` | the blocks inside its Bottlenecks: names, places, settings |
| `config_text` | the text of a config, read as data |
| `facts` | what a config says that no tensor tells, else mmdet's default |
| `blocks` | which block of ours the tensors of a plugin are |
| `architecture` | all of it together |
"""

from __future__ import annotations

from dataclasses import replace

from gcnet.checkpoints import detectors
from gcnet.checkpoints.content import Adapter, Built, Content
from gcnet.checkpoints.mmdet import facts, names, plugins
from gcnet.checkpoints.mmdet.architecture import architecture_of
from gcnet.checkpoints.mmdet.config_text import parse_config


def build(content: Content) -> Built:
    """The detector of a file."""
    notes = content.notes
    config = parse_config(notes.get("cfg", notes.get("config")))
    tensors = names.translate(content.tensors, config)
    subsampled = plugins.subsampled(content.tensors, config)
    found = architecture_of(tensors, config, subsampled=subsampled)
    version = "3" if "mmengine_version" in notes else notes.get("mmdet_version")
    version = version if isinstance(version, str) else None
    source = f"mmdet {version or '2 or 3'}"
    if names.is_background_first(content.tensors):
        source = f"mmdet {version or '1'} (background first, as in the GCNet repository of 2019)"
        line = "boxes, anchors and RoIAlign as in mmdet 2: the rounding of mmdet 1 is not reproduced"
        found = replace(found, assumed=[*found.assumed, line])
    return detectors.built(found, tensors, content.classes or facts.classes(config), source)


ADAPTER = Adapter("mmdet's detectors", names.is_mmdet, build)
