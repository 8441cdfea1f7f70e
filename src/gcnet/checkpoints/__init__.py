"""Saved models: safetensors whose header says how to build the model that the tensors fill."""

from gcnet.checkpoints.errors import CheckpointError as CheckpointError
from gcnet.checkpoints.read import Checkpoint as Checkpoint
from gcnet.checkpoints.read import load_checkpoint as load_checkpoint
from gcnet.checkpoints.write import save_checkpoint as save_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"]
