"""Which prefill:decode ratios leave the storage NICs as the only bottleneck, and the best share of the paths.

Source: DualPath, arXiv 2602.21548v2, section 4.2; `best_share` is the same arithmetic with the rates of both
paths left open. With R_p bytes/s read on the prefill side and R_d on the decode side:
    storage NICs        R_p <= P*S_p           R_d <= D*S_d
    prefill NICs, in    2*R_p <= P*C           prefill NICs, out  R_p + R_d <= P*C
    decode NICs, in     R_p + 2*R_d <= D*C     decode NICs, out   2*R_p + R_d <= D*C
    memory              2*R_p <= P*M           2*R_p + 3*R_d <= D*M
with P and D nodes, and C what all compute NICs of a node together leave to KV, in each direction.
Units:  bytes/s; P and D in nodes; exact fractions, so that equal means equal.
Not modelled: switches, nodes that differ within a role.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import combinations

Row = tuple[Fraction | int, Fraction | int, Fraction]
"""(a, b, c) of a*R_p + b*R_d <= c."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShape:
    """The links of one node, each direction by itself."""

    compute_nics: int  # paper: g, one per GPU
    compute_nic_bytes_per_s: int  # paper: B, of one of them
    storage_bytes_per_s: int  # paper: s*B, of all storage NICs together
    dram_bytes_per_s: int  # paper: M

    def __post_init__(self) -> None:
        """Raises ValueError unless all are positive."""
        figures = (
            self.compute_nics,
            self.compute_nic_bytes_per_s,
            self.storage_bytes_per_s,
            self.dram_bytes_per_s,
        )
        if min(figures) <= 0:
            raise ValueError(f"a node's links must be positive, got {figures}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PdBounds:
    """The bottleneck-free range of P/D, both ends included."""

    lower: Fraction
    upper: Fraction

    def contains(self, prefill: Fraction | int, decode: Fraction | int) -> bool:
        """True when so many nodes saturate their storage NICs before any other link."""
        return decode > 0 and self.lower <= Fraction(prefill) / decode <= self.upper


def pd_bounds(node: NodeShape) -> PdBounds | None:
    """Lowest and highest P/D for which neither memory nor a compute NIC is full first; None: none is so."""
    g = node.compute_nics
    s = Fraction(node.storage_bytes_per_s, node.compute_nic_bytes_per_s)
    memory = Fraction(node.dram_bytes_per_s, node.storage_bytes_per_s)
    if 2 * s >= g:
        return None
    lower, upper = s / (g - s), min((g - 2 * s) / s, (g - s) / (2 * s), (memory - 3) / 2)
    return PdBounds(lower=lower, upper=upper) if lower <= upper else None


class Link(StrEnum):
    """A link that can be the bottleneck."""

    PREFILL_STORAGE = "PrefillStorageNic"
    DECODE_STORAGE = "DecodeStorageNic"
    PREFILL_NIC_IN = "PrefillComputeNicIn"
    PREFILL_NIC_OUT = "PrefillComputeNicOut"
    DECODE_NIC_IN = "DecodeComputeNicIn"
    DECODE_NIC_OUT = "DecodeComputeNicOut"
    PREFILL_MEMORY = "PrefillMemory"
    DECODE_MEMORY = "DecodeMemory"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestShare:
    """The most that can be read, and how."""

    prefill_share: Fraction  # of the bytes, read on the prefill side
    bytes_per_s: Fraction
    binding: tuple[Link, ...]  # links that are full then

    @property
    def decode_permille(self) -> int:
        """The decode side's share as the tuning takes it."""
        return round(1000 * (1 - self.prefill_share))


def best_share(
    node: NodeShape,
    prefill: int,
    decode: int,
    *,
    kv_part: Fraction | int = 1,
    decode_writes_bytes_per_s: int = 0,
) -> BestShare:
    """Maximise R_p + R_d for `prefill` and `decode` nodes.

    `kv_part` is what inference leaves of the compute NICs. Writes, all of them of the decode side, are to be
    given only where they take from what the storage NICs can read. Of several best shares it is the one with
    the most equally busy storage NICs. Raises ValueError without a node of each role.
    """
    if prefill < 1 or decode < 1:
        raise ValueError(f"a share needs a node of each role, got {prefill} prefill and {decode} decode")
    rows = _rows(node, prefill, decode, Fraction(kv_part), decode_writes_bytes_per_s)
    corners = list(_corners(list(rows.values())))
    rate = max(p + d for p, d in corners)
    storage_p, storage_d = rows[Link.PREFILL_STORAGE][2], rows[Link.DECODE_STORAGE][2]
    if rate == 0:
        return BestShare(prefill_share=Fraction(prefill, prefill + decode), bytes_per_s=rate, binding=())
    best = [p for p, d in corners if p + d == rate]
    balanced = rate * storage_p / (storage_p + storage_d)
    read_p = max(min(best), min(max(best), balanced))
    full = tuple(link for link, (a, b, c) in rows.items() if a * read_p + b * (rate - read_p) == c)
    return BestShare(prefill_share=read_p / rate, bytes_per_s=rate, binding=full)


def _rows(node: NodeShape, prefill: int, decode: int, kv_part: Fraction, writes: int) -> dict[Link, Row]:
    nics = kv_part * node.compute_nics * node.compute_nic_bytes_per_s
    storage, memory = Fraction(node.storage_bytes_per_s), Fraction(node.dram_bytes_per_s)
    return {
        Link.PREFILL_STORAGE: (1, 0, prefill * storage),
        Link.DECODE_STORAGE: (0, 1, max(Fraction(0), decode * storage - writes)),
        Link.PREFILL_NIC_IN: (2, 0, prefill * nics),
        Link.PREFILL_NIC_OUT: (1, 1, prefill * nics),
        Link.DECODE_NIC_IN: (1, 2, decode * nics),
        Link.DECODE_NIC_OUT: (2, 1, decode * nics),
        Link.PREFILL_MEMORY: (2, 0, prefill * memory),
        Link.DECODE_MEMORY: (2, 3, decode * memory),
    }


def _corners(rows: list[Row]) -> Iterator[tuple[Fraction, Fraction]]:
    """The corners of what is possible; one of them is best, as in any linear programme."""
    axes: list[Row] = [(-1, 0, Fraction(0)), (0, -1, Fraction(0))]
    lines = rows + axes
    for (a, b, c), (e, f, g) in combinations(lines, 2):
        determinant = a * f - b * e
        if determinant == 0:
            continue
        p, d = (c * f - b * g) / determinant, (a * g - c * e) / determinant
        if all(x * p + y * d <= z for x, y, z in lines):
            yield p, d
