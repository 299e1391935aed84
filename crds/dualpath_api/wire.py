"""Messages between scheduler and engines, and between engines: MessagePack, versioned, extensible.

Scheduler <-> engine: one WebSocket a rank, binary frames, each frame one message (`ToEngine`, `ToScheduler`).
Engine <-> engine: NIXL notifications (`ToPeer`); the bytes themselves travel as NIXL reads.
A request is named by (request, attempt): every retry is a new attempt, and whatever still arrives for an old
attempt is ignored, and so are unknown fields. docs/concepts.md has the states of a request.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from dualpath_api.keys import KvLayout

PROTOCOL = 1


class Role(StrEnum):
    """What an engine does."""

    PREFILL = "prefill"
    DECODE = "decode"


class ReadMode(StrEnum):
    """Which side may read the hit blocks of one request from storage."""

    PREFILL = "prefill"
    DECODE = "decode"
    SPLIT = "split"


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Base of all messages; the tag is the class name."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn. temperature 0 is greedy. Draws are keyed by (seed, choice, position)."""

    max_tokens: int  # of one choice, counted from the end of the client's prompt
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    logprobs: int | None = None  # None: none; k: the drawn token's and the k best's
    stop_token_ids: tuple[int, ...] = ()  # end-of-sequence ids, empty with ignore_eos


class StorageNic(StrEnum):
    """Whether an engine has a storage NIC that no other side shares, as far as spec.nics tells."""

    PRESENT = "present"  # a rule names one, and it is there
    MISSING = "missing"  # rules name one, and it is not there
    UNNAMED = "unnamed"  # no rule names one


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One NIC's counters, and its rates: since the sample before, and as a mean over some seconds."""

    name: str
    role: str  # storage | compute
    rx_bytes: int
    tx_bytes: int
    rx_bytes_per_s: float
    tx_bytes_per_s: float
    link_bytes_per_s: float  # 0: unknown
    rx_mean_bytes_per_s: float | None = None
    tx_mean_bytes_per_s: float | None = None
    measured_bytes_per_s: float = 0.0  # what it carried while reads were waiting; 0: not measured
    capacity_bytes_per_s: float = 0.0  # what counts as full: link or measured; 0: the link, if known
    counted: bool = True  # False: it has no counters, and all rates are 0
    congestion: dict[str, int] = {}  # totals by kind, as in dualpath_nic_congestion_total
    scope: str = ""  # its name is unique within this network namespace; "": within its node


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine's blocks can be reached."""

    engine: str
    incarnation: str
    agent: bytes  # NIXL agent metadata
    pool: bytes  # msgpack of PoolInfo


class PoolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A registered block buffer: slot s, layer l starts at base + (s * layers + l) * layer_block_bytes."""

    base: int
    slots: int
    layers: int
    layer_block_bytes: int
    device: int = 0


# ---------------------------------------------------------------- engine -> scheduler


class Register(Message, frozen=True, kw_only=True):
    """First message of a connection. A new incarnation drops all that the old one knew."""

    protocol: int
    engine: str  # prefill-0-0; in a pod POD-RANK
    role: Role
    group: str  # prefill-0; the pod's name
    rank: int
    incarnation: str
    pid: int
    layout: KvLayout
    max_context: int  # tokens, of the model
    buffer_slots: int
    cache_pages: int  # decode engines; 0 for prefill
    peer: Peer
    metrics_url: str
    prefill_tokens_per_s: float = 0.0  # measured at start; alpha and beta follow from these two
    storage_tokens_per_s: float = 0.0
    revision: str = ""  # engines of different revisions are never paired
    pod: str = ""
    pod_uid: str = ""
    node: str = ""
    process: str = ""  # alike for all connections of one process: what was wished of it ends with it
    accept_new: bool = True  # what the last connection wished, for a scheduler that has lost it
    serve_reads: bool = True
    storage_nic: StorageNic = StorageNic.PRESENT


class Report(Message, frozen=True, kw_only=True):
    """Load of one engine; at each change, at least each 100 ms while busy, each 2 s while idle."""

    seen: int  # highest assignment number that these figures include
    seq_e: int  # unfinished requests
    tok_e: int  # their tokens (prefill: still to compute or stream; decode: prompt + generated)
    read_q: int  # hit tokens assigned to this engine's storage NIC and not yet read
    read_bytes_queued: int = 0
    read_bytes_total: int = 0  # from storage, since start
    free_slots: int = 0
    free_pages: int = 0
    quarantined: int = 0
    accept_new: bool = True
    serve_reads: bool = True
    serving_reads: int = 0  # requests of other engines that still read from this one's buffer
    busy_s: float = 0.0  # spent computing, since start
    nics: tuple[Nic, ...] = ()  # rank 0 of a group only


class Matched(Message, frozen=True, kw_only=True):
    """Answer to `Match`: how many leading keys exist in storage."""

    query: int
    blocks: int


class Accepted(Message, frozen=True, kw_only=True):
    """Slots are reserved; this side is working on the request."""

    request: str
    attempt: int


class Refused(Message, frozen=True, kw_only=True):
    """No room, draining, or unknown peer: back to the queue."""

    request: str
    attempt: int
    reason: str


class ReadDone(Message, frozen=True, kw_only=True):
    """From the prefill engine: the hit is settled, compute can start."""

    request: str
    attempt: int
    hit_tokens: int  # KV really used
    prefill_blocks: int  # read by each side
    decode_blocks: int
    prefill_bytes: int
    decode_bytes: int
    lost_blocks: int = 0  # matched, but missing, corrupt or late
    seconds: float = 0.0


class Drawn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, array_like=True):
    """One drawn token of one choice. `finish` is "stop", "length" or None; a stop token's id is sent too."""

    request: str
    attempt: int
    choice: int
    token: int
    finish: str | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Tokens(Message, frozen=True, kw_only=True):
    """One step's tokens of the whole batch. From a prefill engine: the first token of each choice."""

    drawn: tuple[Drawn, ...]


class Filled(Message, frozen=True, kw_only=True):
    """From the decode engine: the whole prompt is in its cache; decoding has begun, or nothing is left."""

    request: str
    attempt: int


class Failed(Message, frozen=True, kw_only=True):
    """This side gave the attempt up. `excuse`: not the engine's fault (cache pressure), not counted."""

    request: str
    attempt: int
    reason: str
    excuse: bool = False
    peer: str = ""  # the engine that could not be reached: either of the two may be the reason


class Stored(Message, frozen=True, kw_only=True):
    """Blocks that left the write queue, written or dropped."""

    keys: tuple[bytes, ...]


ToScheduler = Register | Report | Matched | Accepted | Refused | ReadDone | Tokens | Filled | Failed | Stored

# ---------------------------------------------------------------- scheduler -> engine


class Match(Message, frozen=True, kw_only=True):
    """How many leading keys exist in storage?"""

    query: int
    keys: tuple[bytes, ...]


class Assign(Message, frozen=True, kw_only=True):
    """One attempt of one request. The decode engine gets it first, the prefill engine after `Accepted`."""

    request: str
    attempt: int
    number: int  # assignment number, echoed as Report.seen
    tokens: tuple[int, ...]  # prompt, and for a resumed request what was generated before
    prompt_tokens: int  # of the client's prompt; later ones count as generated
    keys: tuple[bytes, ...]  # of all complete blocks of `tokens`
    hit_blocks: int
    mode: ReadMode
    decode_min: int = 0  # with SPLIT: bounds of the decode side's share, in blocks
    decode_max: int | None = None
    choices: tuple[int, ...] = (0,)  # indices of the choices to generate
    sampling: Sampling
    peer: Peer  # the other side


class Start(Message, frozen=True, kw_only=True):
    """To the decode engine: the first tokens, drawn by the prefill engine; a finished choice is left out."""

    request: str
    attempt: int
    first: tuple[tuple[int, int], ...]  # (choice, token)


class Abort(Message, frozen=True, kw_only=True):
    """Forget the attempt; `choice` None: all of it."""

    request: str
    attempt: int
    choice: int | None = None


class Drain(Message, frozen=True, kw_only=True):
    """Level-based: what the engine should do from now on."""

    accept_new: bool
    serve_reads: bool


class PeerGone(Message, frozen=True, kw_only=True):
    """An incarnation is known dead: it can neither read nor write our slots any more."""

    engine: str
    incarnation: str


ToEngine = Match | Assign | Start | Abort | Drain | PeerGone

# ---------------------------------------------------------------- engine <-> engine


class Want(Message, frozen=True, kw_only=True):
    """Decode -> prefill: grant me blocks to read."""

    request: str
    attempt: int


class Grant(Message, frozen=True, kw_only=True):
    """Prefill -> decode: read these blocks (indices into the hit); empty: nothing is left."""

    request: str
    attempt: int
    blocks: tuple[int, ...]


class Have(Message, frozen=True, kw_only=True):
    """Decode -> prefill: these blocks are in my slots; those failed, and those came too late."""

    request: str
    attempt: int
    blocks: tuple[tuple[int, int], ...]  # (block, slot)
    failed: tuple[int, ...] = ()  # missing or corrupt: nobody can read them
    late: tuple[int, ...] = ()  # the other side may try
    bytes_read: int = 0


class Plan(Message, frozen=True, kw_only=True):
    """Prefill -> decode: a chunk begins; after each of its layers these blocks are to be pulled."""

    batch: int
    request: str
    attempt: int
    blocks: tuple[tuple[int, int], ...]  # (block, slot)
    hit_blocks: int  # how many leading blocks are hits after all losses
    last: bool


class Ready(Message, frozen=True, kw_only=True):
    """Prefill -> decode: one layer of a batch can be pulled; one message a layer and batch, not a request."""

    batch: int
    layer: int


class Released(Message, frozen=True, kw_only=True):
    """I will not touch your slots for this attempt any more: they are yours."""

    request: str
    attempt: int


class Confirmed(Message, frozen=True, kw_only=True):
    """Prefill -> decode: when your `Released` came, my slots still held this attempt.

    A decode engine that was stopped and declared dead in between would otherwise trust, and store, bytes that
    it pulled from slots which already belonged to another request.
    """

    request: str
    attempt: int


class Holding(Message, frozen=True, kw_only=True):
    """My slots for this attempt are still held for you. Say `Released` again: it may have been lost."""

    request: str
    attempt: int


ToPeer = Want | Grant | Have | Plan | Ready | Released | Confirmed | Holding

_encoder = msgspec.msgpack.Encoder()
_to_scheduler: msgspec.msgpack.Decoder[ToScheduler] = msgspec.msgpack.Decoder(ToScheduler)
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_to_peer: msgspec.msgpack.Decoder[ToPeer] = msgspec.msgpack.Decoder(ToPeer)
_pool = msgspec.msgpack.Decoder(PoolInfo)


def encode(message: Message | PoolInfo) -> bytes:
    """One message as bytes."""
    return _encoder.encode(message)


def decode_to_scheduler(data: bytes) -> ToScheduler:
    """Raises msgspec.DecodeError on anything else."""
    return _to_scheduler.decode(data)


def decode_to_engine(data: bytes) -> ToEngine:
    """Raises msgspec.DecodeError on anything else."""
    return _to_engine.decode(data)


def decode_to_peer(data: bytes) -> ToPeer:
    """Raises msgspec.DecodeError on anything else."""
    return _to_peer.decode(data)


def decode_pool(data: bytes) -> PoolInfo:
    """Raises msgspec.DecodeError on anything else."""
    return _pool.decode(data)
