"""How different vectors, or attention maps, are from each other on average (arXiv 1904.11492, section 3.2, table 1)."""

from gcnet.ops.distances.cosine import average_cosine_distance as average_cosine_distance
from gcnet.ops.distances.cosine import unit_vectors as unit_vectors
from gcnet.ops.distances.divergence import EXACT_UP_TO as EXACT_UP_TO
from gcnet.ops.distances.divergence import Estimate as Estimate
from gcnet.ops.distances.divergence import average_jensen_shannon as average_jensen_shannon
from gcnet.ops.distances.divergence import effective_positions as effective_positions
from gcnet.ops.distances.divergence import entropy as entropy
from gcnet.ops.distances.divergence import sampled_jensen_shannon as sampled_jensen_shannon
from gcnet.ops.distances.reference import average_cosine_distance_reference as average_cosine_distance_reference
from gcnet.ops.distances.reference import average_jensen_shannon_reference as average_jensen_shannon_reference
