"""The error of everything that is wrong with the content of a checkpoint."""


class CheckpointError(ValueError):
    """A file that is no checkpoint, a damaged one, or one that does not fit; the message says which and what to do."""
