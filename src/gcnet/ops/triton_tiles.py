"""How every Triton program addresses a (channels, positions) tile of one image in either memory layout."""
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl


@triton.jit
def tile_offsets(c, p, units, ALIGN: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offsets of a (channels, positions) tile inside one image. `units * ALIGN` tells the compiler the alignment."""
    if CHANNELS_LAST:
        offsets = c[:, None] + p[None, :] * (units * ALIGN)
    else:
        offsets = c[:, None] * (units * ALIGN) + p[None, :]
    return offsets


@triton.jit
def sizes(units, outer, ALIGN: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """(C, P) from the size of the contiguous dimension and the other one."""
    inner = units * ALIGN
    if CHANNELS_LAST:
        C, P = inner, outer
    else:
        C, P = outer, inner
    return C, P
