"""Rewrites: a model in, a new model out, the old one untouched."""

from gcnet.errors import RewriteError as RewriteError
from gcnet.rewrites.acceleration import accelerate as accelerate
from gcnet.rewrites.deformation import deform as deform
from gcnet.rewrites.folding import fold as fold
from gcnet.rewrites.insertion import insert as insert
from gcnet.rewrites.insertion import inserted as inserted
from gcnet.rewrites.simplification import simplify as simplify
