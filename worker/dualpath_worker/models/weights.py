"""Tensors of a checkpoint by memory map, each taken once, all accounted for.

A tensor that is missing, has another shape than the config says, or is not known to the model is refused by
name: a silent default or a silently ignored weight gives wrong answers that look right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_worker.models.config import read_json

Tensor = torch.Tensor
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_READABLE = {torch.float32, torch.bfloat16, torch.float16}
# Buffers that old checkpoints carry; computed anew here.
_IGNORED = ("rotary_emb.inv_freq",)
_INDEX = "model.safetensors.index.json"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted: those of the index, else the single file.

    Raises:
        SpecError: there are none, or one that the index names is missing.
    """
    if (directory / _INDEX).exists():
        names = sorted(set(read_json(directory / _INDEX).get("weight_map", {}).values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise SpecError(
            f"{directory} has no complete weights",
            cause=f"missing: {', '.join(missing) or 'all'}",
            remedy="download the checkpoint again, in safetensors format",
        )
    return [directory / name for name in names]


class Weights:
    """Named tensors of one checkpoint, converted to one dtype and device."""

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.directory = directory
        self.dtype = dtype
        self.device = device
        self._files: dict[str, Any] = {}
        for path in weight_files(directory):
            try:
                opened: Any = safe_open(path, framework="pt")
                self._files.update(dict.fromkeys(opened.keys(), opened))
            except (SafetensorError, OSError) as error:
                raise SpecError(
                    f"cannot read {path}", cause=str(error), remedy="download the file again"
                ) from None
        self._left = {name for name in self._files if not name.endswith(_IGNORED)}

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """One tensor; on a CPU and without conversion it is a view of the mapped file.

        Raises:
            SpecError: missing, or not of this shape.
            UnsupportedError: stored in a dtype that cannot be converted.
        """
        if name not in self._files:
            raise self._refuse(f"tensor {name} is missing")
        tensor: Tensor = self._files[name].get_tensor(name)
        if tuple(tensor.shape) != tuple(shape):
            raise self._refuse(f"tensor {name} has shape {tuple(tensor.shape)}, not {tuple(shape)}")
        if tensor.dtype not in _READABLE:
            raise UnsupportedError(
                "these weights are not supported",
                cause=f"tensor {name} is stored as {tensor.dtype}",
                remedy="use a checkpoint in float32, bfloat16 or float16",
            )
        self._left.discard(name)
        return tensor.to(device=self.device, dtype=self.dtype)

    def take_rows(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Tensor:
        """Several tensors, one under the other, as one matrix (or vector)."""
        parts = [self.take(name, shape) for name, shape in zip(names, shapes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def drop(self, name: str) -> None:
        """This tensor is known and not needed."""
        self._left.discard(name)

    def finish(self) -> None:
        """Raises SpecError if tensors are left that nobody took."""
        if self._left:
            names = sorted(self._left)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise self._refuse(f"unexpected tensors: {', '.join(names[:5])}{more}")

    def _refuse(self, cause: str) -> SpecError:
        return SpecError(
            f"the weights in {self.directory} do not fit its config.json",
            cause=cause,
            remedy="restore both from the same checkpoint",
        )
