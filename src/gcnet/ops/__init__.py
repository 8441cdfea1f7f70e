"""Ops: tensor in, tensor out, no parameters. Each has a plain reference that defines it."""

from gcnet.ops import distances as distances
from gcnet.ops.attention_pooling import attention_pool as attention_pool
from gcnet.ops.attention_pooling import attention_pool_and_skip as attention_pool_and_skip
from gcnet.ops.attention_pooling import attention_pool_reference as attention_pool_reference
from gcnet.ops.context_vectors import average_pool as average_pool
from gcnet.ops.context_vectors import pooled_transform as pooled_transform
from gcnet.ops.context_vectors import pooled_transform_reference as pooled_transform_reference
from gcnet.ops.criss_cross_attention import criss_cross as criss_cross
from gcnet.ops.criss_cross_attention import criss_cross_reference as criss_cross_reference
from gcnet.ops.fusion import fuse as fuse
from gcnet.ops.fusion import fuse_reference as fuse_reference
from gcnet.ops.nonlocal_attention import PAIRWISE as PAIRWISE
from gcnet.ops.nonlocal_attention import nonlocal_attend as nonlocal_attend
from gcnet.ops.nonlocal_attention import nonlocal_attend_reference as nonlocal_attend_reference
from gcnet.ops.nonlocal_attention import pairwise_weights as pairwise_weights
from gcnet.ops.relative_attention import relative_attend as relative_attend
from gcnet.ops.relative_attention import relative_attend_reference as relative_attend_reference
