"""Whose files are read: a row per program. A new source is a module or folder with its ADAPTER, and a row here."""

from gcnet.checkpoints import classifiers, mmdet, torchvision
from gcnet.checkpoints.content import Adapter

ADAPTERS: tuple[Adapter, ...] = (mmdet.ADAPTER, torchvision.ADAPTER, classifiers.ADAPTER)  # the first that fits
