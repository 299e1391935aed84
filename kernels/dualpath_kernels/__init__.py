"""torch and Triton ops of the data path; one op a file: reference, kernel, checked wrapper."""

from dualpath_kernels.gather_layer_blocks import gather_layer_blocks
from dualpath_kernels.paged_decode_attention import paged_decode_attention
from dualpath_kernels.prefill_attention import prefill_attention
from dualpath_kernels.rms_norm import rms_norm
from dualpath_kernels.rope_store import rope_store
from dualpath_kernels.scatter_layer_blocks import scatter_layer_blocks

__all__ = [
    "gather_layer_blocks",
    "paged_decode_attention",
    "prefill_attention",
    "rms_norm",
    "rope_store",
    "scatter_layer_blocks",
]
