"""The context path of a block: pool a map to one vector per image and transform it, for every branch of the block.

`choice` names the backend of a call: `cpu` has few calls, `triton` few launches, `general` serves everything.
"""

from gcnet.ops.context_vectors.choice import BACKENDS as BACKENDS
from gcnet.ops.context_vectors.choice import context_vectors as context_vectors
from gcnet.ops.context_vectors.one_branch import pooled_transform as pooled_transform
from gcnet.ops.context_vectors.reference import Branch as Branch
from gcnet.ops.context_vectors.reference import pooled_transform_reference as pooled_transform_reference
