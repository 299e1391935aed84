"""Which side reads a request's hit blocks from storage: prefill, decode, or both.

Source: DualPath, arXiv 2602.21548v2, section 6 (read side); splitting one read is what its authors
leave open.
"""

from __future__ import annotations

from dualpath_api.cluster import PathMode
from dualpath_api.wire import ReadMode, Role, StorageNic
from dualpath_policy.model import EngineLoad, ModeChoice, SideChoice, Tuning

SPLIT_FROM_BLOCKS = 8
"""Auto splits reads of at least so many blocks: below, the messages of a split cost more than it saves."""


def shorter_queue(tuning: Tuning, prefill: EngineLoad, decode: EngineLoad) -> SideChoice:
    """The side with fewer tokens to read; a tie goes to prefill, so equal input gives equal output."""
    lead = prefill.read_q + tuning.bias_tokens - decode.read_q
    best, other = (decode, prefill) if lead > 0 else (prefill, decode)
    bias = f", with {tuning.bias_tokens} added to prefill by the tuning" if tuning.bias_tokens else ""
    reason = f"{best.engine} has {best.read_q} tokens to read, {other.engine} has {other.read_q}{bias}"
    return SideChoice(side=best.role, reason=reason)


def choose_mode(
    tuning: Tuning,
    prefill: EngineLoad,
    decode: EngineLoad,
    hit_blocks: int,
    split_from: int = SPLIT_FROM_BLOCKS,
) -> ModeChoice:
    """Who may read the `hit_blocks` blocks of a request placed on `prefill` and `decode`."""
    policy = tuning.path_policy
    if hit_blocks == 0:
        return ModeChoice(mode=ReadMode.PREFILL, reason="nothing to read")
    if policy is PathMode.PREFILL_ONLY:
        return ModeChoice(mode=ReadMode.PREFILL, reason="the path policy is PrefillOnly")
    if not decode.serve_reads:
        return ModeChoice(mode=ReadMode.PREFILL, reason=f"{decode.engine} serves no reads for others now")
    if policy is PathMode.DECODE_ONLY:
        return ModeChoice(mode=ReadMode.DECODE, reason="the path policy is DecodeOnly")
    if not prefill.serve_reads:
        return ModeChoice(mode=ReadMode.DECODE, reason=f"{prefill.engine} reads nothing now")
    if reason := no_two_nics(policy, prefill, decode):
        return ModeChoice(mode=ReadMode.PREFILL, reason=reason)
    if policy is PathMode.SPLIT:
        return _split(tuning, hit_blocks, "the path policy is Split")
    if policy is PathMode.SHORTER_QUEUE:
        return _whole(tuning, prefill, decode, "the path policy is ShorterQueue")
    return _auto(tuning, prefill, decode, hit_blocks, split_from)


def no_two_nics(policy: PathMode, prefill: EngineLoad, decode: EngineLoad) -> str:
    """Why Auto or Split may not count on a storage NIC on each side; "": they may.

    Where one NIC carries storage and KV between engines, whatever the decode side reads passes the prefill
    side's NIC all the same, so nothing is gained. Without rules Auto does not guess that there are two,
    except within one node, where nothing passes a NIC; Split was asked for by somebody who may know.
    """
    for load in (prefill, decode):
        if load.storage_nic is StorageNic.MISSING:
            return f"{load.engine} has no storage NIC that spec.nics names"
    unnamed = StorageNic.UNNAMED in (prefill.storage_nic, decode.storage_nic)
    if unnamed and policy is PathMode.AUTO and prefill.node != decode.node:
        return f"spec.nics names no storage NIC, and {prefill.engine} and {decode.engine} are on two nodes"
    return ""


def _auto(
    tuning: Tuning, prefill: EngineLoad, decode: EngineLoad, hit_blocks: int, split_from: int
) -> ModeChoice:
    if tuning.decode_max_permille == 0:
        return ModeChoice(mode=ReadMode.PREFILL, reason="the tuning allows no reads on the decode side")
    if tuning.decode_min_permille == 1000:
        return ModeChoice(mode=ReadMode.DECODE, reason="the tuning asks for all reads on the decode side")
    if hit_blocks >= split_from:
        return _split(tuning, hit_blocks, f"{hit_blocks} blocks are enough to read on both sides at once")
    return _whole(tuning, prefill, decode, f"{hit_blocks} blocks are too few to split")


def _whole(tuning: Tuning, prefill: EngineLoad, decode: EngineLoad, why: str) -> ModeChoice:
    shorter = shorter_queue(tuning, prefill, decode)
    mode = ReadMode.DECODE if shorter.side is Role.DECODE else ReadMode.PREFILL
    return ModeChoice(mode=mode, reason=f"{shorter.reason}; {why}")


def _split(tuning: Tuning, hit_blocks: int, why: str) -> ModeChoice:
    """Bounds in blocks are rounded outwards, so that a share can always be met."""
    low = hit_blocks * tuning.decode_min_permille // 1000
    high = -(-hit_blocks * tuning.decode_max_permille // 1000)
    bounds = "" if (low, high) == (0, hit_blocks) else f"; the decode side reads {low} to {high} of them"
    return ModeChoice(mode=ReadMode.SPLIT, decode_min=low, decode_max=high, reason=why + bounds)
