"""`fold`: norms and context blocks merged into the convolutions."""

from gcnet.rewrites.folding.apply import fold as fold
from gcnet.rewrites.folding.apply import replay as replay
