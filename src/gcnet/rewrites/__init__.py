"""Rewrites: a model in, a new model out, the old one untouched."""

from gcnet.rewrites.accelerate import accelerate as accelerate
from gcnet.rewrites.deform import deform as deform
from gcnet.rewrites.errors import RewriteError as RewriteError
from gcnet.rewrites.fold import fold as fold
from gcnet.rewrites.insert import insert as insert
from gcnet.rewrites.insert import inserted as inserted
from gcnet.rewrites.simplify import simplify as simplify
