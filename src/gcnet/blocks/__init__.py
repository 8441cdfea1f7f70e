"""Blocks: parameters and a call of an op. All take (B, C, *spatial) and return the same shape."""

from gcnet.blocks.catalogue import CATALOGUE as CATALOGUE
from gcnet.blocks.catalogue import create_block as create_block
from gcnet.blocks.catalogue import list_blocks as list_blocks
from gcnet.blocks.context import ContextBlock as ContextBlock
from gcnet.blocks.criss_cross import CrissCross as CrissCross
from gcnet.blocks.disentangled_nonlocal import DisentangledNonLocal as DisentangledNonLocal
from gcnet.blocks.dual import DualAttention as DualAttention
from gcnet.blocks.from_timm import BilinearAttention as BilinearAttention
from gcnet.blocks.from_timm import Cbam as Cbam
from gcnet.blocks.from_timm import EfficientChannelAttention as EfficientChannelAttention
from gcnet.blocks.gated import Gated as Gated
from gcnet.blocks.gather_excite import GatherExcite as GatherExcite
from gcnet.blocks.generalized_attention import GeneralizedAttention as GeneralizedAttention
from gcnet.blocks.global_context import GlobalContext as GlobalContext
from gcnet.blocks.global_context import SimplifiedNonLocal as SimplifiedNonLocal
from gcnet.blocks.global_context import SqueezeExcitation as SqueezeExcitation
from gcnet.blocks.nonlocal_block import NonLocal as NonLocal
