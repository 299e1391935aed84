"""The supported families: `architectures` of config.json -> the module that knows what differs.

To add a family: one file with `traits(fields)`, one line here, one line in examples/checkpoints.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualpath_worker.models import llama, mistral, qwen2, qwen3
from dualpath_worker.models.config import Fields, Traits

FAMILIES: dict[str, tuple[str, Callable[[Fields], Traits]]] = {
    "Qwen2ForCausalLM": ("qwen2", qwen2.traits),
    "Qwen3ForCausalLM": ("qwen3", qwen3.traits),
    "LlamaForCausalLM": ("llama", llama.traits),
    "MistralForCausalLM": ("mistral", mistral.traits),
}


def find_family(raw: dict[str, Any]) -> tuple[str, Traits]:
    """Name and traits of the config's family. Raises UnsupportedError naming the architecture."""
    fields = Fields(raw)
    names = raw.get("architectures") or []
    for name in names:
        if name in FAMILIES:
            family, traits = FAMILIES[name]
            return family, traits(fields)
    for family, traits in FAMILIES.values():
        if not names and raw.get("model_type") == family:
            return family, traits(fields)
    field = "architectures" if names else "model_type"
    raise fields.refuse(field, f"supported are {', '.join(FAMILIES)}")
