from gcnet.checkpoints.load import Checkpoint as Checkpoint
from gcnet.checkpoints.load import load_checkpoint as load_checkpoint
from gcnet.checkpoints.save import save_checkpoint as save_checkpoint
from gcnet.errors import CheckpointError as CheckpointError
