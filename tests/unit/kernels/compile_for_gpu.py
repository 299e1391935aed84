"""Compile every Triton kernel for an H200 (sm_90), which needs no GPU; run as a program of its own.

Not in a test process: there the interpreter has replaced parts of Triton's language.
"""

import importlib
import os

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # unset, Triton 3.9 warns

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

H200 = GPUTarget("cuda", 90, 32)


def build(module, name, types, constants):
    """`types` of the arguments that are not int32, `constants` of the tl.constexpr ones."""
    function = getattr(importlib.import_module(f"dualpath_kernels.{module}"), name).function
    function.__globals__["tl"] = tl
    kernel = triton.jit(function)
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    places = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    compiled = compile(ASTSource(fn=kernel, signature=signature, constexprs=places), target=H200)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 227 * 1024, f"{module}.{name} wants too much shared memory"


def pointers(kind, *names):
    return {f"{name}_ptr": kind for name in names}


for kind, widen in (("*bf16", False), ("*fp32", True)):
    build(
        "rms_norm",
        "_kernel",
        {**pointers(kind, "x", "weight", "residual", "normed", "summed"), "eps": "fp32"},
        {"HAS_RESIDUAL": True, "BLOCK": 4096},
    )
    build(
        "rope_store",
        "_kernel",
        {
            **pointers(kind, "q", "k", "v", "kv", "out"),
            **pointers("*fp32", "cos", "sin"),
            **pointers("*i64", "positions", "rows"),
        },
        {"HEADS": 32, "KV_HEADS": 8, "HALF": 64, "BLOCK_Q": 32, "BLOCK_K": 8, "BLOCK_C": 64},
    )
    build(
        "paged_decode_attention",
        "_split_kernel",
        {
            **pointers(kind, "q", "pool"),
            **pointers("*i32", "table", "lengths"),
            **pointers("*fp32", "partial", "lse"),
            "scale": "fp32",
        },
        {
            **{"KV_HEADS": 8, "GROUPS": 4, "SIZE": 128, "PAGE": 64},
            **{"BLOCK_G": 16, "BLOCK_T": 64, "BLOCK_D": 128, "WIDEN": widen},
        },
    )
    build(
        "paged_decode_attention",
        "_merge_kernel",
        {**pointers("*fp32", "partial", "lse"), **pointers(kind, "out")},
        {"SIZE": 128, "BLOCK_S": 16, "BLOCK_D": 128},
    )
for to_rows in (True, False):
    build(
        "layer_blocks",
        "_kernel",
        pointers("*i64", "buffer", "rows", "slots", "pages"),
        {"PAGED": not to_rows, "TO_ROWS": to_rows, "BLOCK": 2048},
    )
