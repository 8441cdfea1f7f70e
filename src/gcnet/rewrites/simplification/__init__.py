"""`simplify`: one attention map per image where that is enough."""

from gcnet.rewrites.simplification.apply import replay as replay
from gcnet.rewrites.simplification.apply import simplify as simplify
