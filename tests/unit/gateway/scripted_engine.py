"""A peer at the process border: speaks wire.py over a real WebSocket and computes tokens by a formula.

`store` is the set of keys in storage, shared by the engines of a test. Token of (choice, position):
`token_at`. Behaviour is changed by attributes (`refuse`, `fail_reason`, `hold_*`), never by patching.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import msgspec

from dualpath_api import wire
from dualpath_api.keys import KvLayout, block_keys

M = TypeVar("M")
BLOCK = 64
LAYOUT = KvLayout(fingerprint="00", dtype="float32", layers=2, kv_heads=1, head_dim=8, block_tokens=BLOCK)


def token_at(choice: int, position: int) -> int:
    """Printable ids of the byte-level test tokenizer."""
    return 100 + (position * 7 + choice * 3) % 150


def register(
    name: str, role: wire.Role, *, slots: int = 64, pages: int = 64, context: int = 2048, **more: Any
) -> wire.Register:
    group = name.rpartition("-")[0]
    return wire.Register(
        protocol=wire.PROTOCOL,
        engine=name,
        role=role,
        group=group,
        rank=0,
        incarnation=more.pop("incarnation", f"{name}-1"),
        pid=1,
        layout=more.pop("layout", LAYOUT),
        max_context=context,
        buffer_slots=slots,
        cache_pages=pages if role is wire.Role.DECODE else 0,
        peer=wire.Peer(engine=name, incarnation="1", agent=b"", pool=b""),
        metrics_url="",
        **more,
    )


class ScriptedEngine:
    """One engine. Use as an async context manager."""

    def __init__(self, url: str, name: str, role: wire.Role, store: set[bytes], **registration: Any) -> None:
        self.url, self.name, self.role, self.store = url, name, role, store
        self.registration = register(name, role, **registration)
        self.layout = self.registration.layout
        self.headers: dict[str, str] = {}
        self.received: list[Any] = []
        self.live: dict[tuple[str, int], wire.Assign] = {}
        self.firsts: dict[tuple[str, int], dict[int, int]] = {}
        self.refuse = 0  # so many assignments are refused
        self.fail_reason: str | None = None  # the next assignment fails with it after being accepted
        self.mute: set[type] = set()  # kinds of messages that are not answered
        self.hold_tokens = asyncio.Event()
        self.hold_tokens.set()
        self.tokens_limit: int | None = None  # decode: so many tokens, then nothing more
        self.finish_token: int | None = None  # drawn instead at `finish_at`, with finish "stop"
        self.finish_at = 10**9
        self.script: Callable[[int, int], int] = token_at
        self.logprob: float | None = None
        self.figures: dict[str, Any] = {}  # fields of all later reports
        self.store_late = False  # persist only on `flush`
        self.unstored: list[bytes] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedEngine:
        self.session = aiohttp.ClientSession(headers=self.headers)
        self.socket = await self.session.ws_connect(self.url, max_msg_size=0)
        await self.send(self.registration)
        await self.report()
        self._spawn(self._receive())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Close without a word."""
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.socket.close()
        await self.session.close()

    async def send(self, message: wire.Message) -> None:
        await self.socket.send_bytes(wire.encode(message))

    async def report(self, **more: Any) -> None:
        used = sum(-(-len(a.tokens) // self.layout.block_tokens) for a in self.live.values())
        fields = {
            "seen": max((m.number for m in self.received if isinstance(m, wire.Assign)), default=0),
            "seq_e": len(self.live),
            "tok_e": sum(len(a.tokens) for a in self.live.values()),
            "read_q": 0,
            "free_slots": self.registration.buffer_slots - used,
            "free_pages": self.registration.cache_pages,
        }
        await self.send(wire.Report(**{**fields, **self.figures, **more}))

    async def saw(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """Wait for a message."""

        def find() -> M | None:
            return next((m for m in self.received if isinstance(m, kind) and where(m)), None)

        async with self._changed:
            await self._changed.wait_for(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    def all_of(self, kind: type[M]) -> list[M]:
        return [m for m in self.received if isinstance(m, kind)]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self) -> None:
        async for frame in self.socket:
            message = wire.decode_to_engine(frame.data)
            self.received.append(message)
            async with self._changed:
                self._changed.notify_all()
            if type(message) in self.mute:
                continue
            match message:
                case wire.Match():
                    await self._match(message)
                case wire.Assign():
                    await self._assign(message)
                case wire.Start():
                    if (assign := self.live.get((message.request, message.attempt))) is not None:
                        self.firsts[message.request, message.attempt] = dict(message.first)
                        self._spawn(self._decode(assign))
                case wire.Drain():
                    self.figures |= {"accept_new": message.accept_new, "serve_reads": message.serve_reads}
                    await self.report()
                case wire.Abort():
                    if message.choice is None:
                        self.live.pop((message.request, message.attempt), None)
                        await self.report()
                    else:
                        self.firsts.get((message.request, message.attempt), {}).pop(message.choice, None)

    async def _match(self, message: wire.Match) -> None:
        blocks = 0
        for key in message.keys:
            if key not in self.store:
                break
            blocks += 1
        await self.send(wire.Matched(query=message.query, blocks=blocks))

    async def _assign(self, assign: wire.Assign) -> None:
        about = {"request": assign.request, "attempt": assign.attempt}
        if self.refuse:
            self.refuse -= 1
            await self.send(wire.Refused(**about, reason="no room"))
            return
        self.live[assign.request, assign.attempt] = assign
        await self.report()
        await self.send(wire.Accepted(**about))
        if self.fail_reason is not None:
            reason, self.fail_reason = self.fail_reason, None
            self.live.pop((assign.request, assign.attempt))
            await self.send(wire.Failed(**about, reason=reason))
        elif self.role is wire.Role.PREFILL:
            self._spawn(self._prefill(assign))

    async def _prefill(self, assign: wire.Assign) -> None:
        size = self.layout.full_block_bytes
        mine = {wire.ReadMode.PREFILL: assign.hit_blocks, wire.ReadMode.DECODE: 0}
        prefill = mine.get(assign.mode, assign.hit_blocks // 2)
        decode = assign.hit_blocks - prefill
        hit = min(assign.hit_blocks * self.layout.block_tokens, len(assign.tokens) - 1)
        await self.send(
            wire.ReadDone(
                request=assign.request,
                attempt=assign.attempt,
                hit_tokens=hit,
                prefill_blocks=prefill,
                decode_blocks=decode,
                prefill_bytes=prefill * size,
                decode_bytes=decode * size,
            )
        )
        await self.hold_tokens.wait()
        if self.live.pop((assign.request, assign.attempt), None) is None:
            return
        drawn = [self._drawn(assign, choice, len(assign.tokens)) for choice in assign.choices]
        await self.send(wire.Tokens(drawn=tuple(drawn)))
        await self.report()

    def _drawn(self, assign: wire.Assign, choice: int, position: int) -> wire.Drawn:
        generated = position - assign.prompt_tokens + 1
        token, finish = self.script(choice, position), None
        if generated >= self.finish_at and self.finish_token is not None:
            token, finish = self.finish_token, "stop"
        elif generated >= assign.sampling.max_tokens:
            finish = "length"
        top: tuple[tuple[int, float], ...] = ()
        if assign.sampling.logprobs is not None:
            top = tuple((token + i, -0.5 - i) for i in range(assign.sampling.logprobs))
        return wire.Drawn(
            request=assign.request,
            attempt=assign.attempt,
            choice=choice,
            token=token,
            finish=finish,
            logprob=-0.5 if assign.sampling.logprobs is not None else None,
            top=top,
        )

    async def _decode(self, assign: wire.Assign) -> None:
        name = (assign.request, assign.attempt)
        await self.send(wire.Filled(request=assign.request, attempt=assign.attempt))
        sequences = {c: [*assign.tokens, t] for c, t in self.firsts[name].items()}
        sent = 0
        while sequences and name in self.live:
            await self.hold_tokens.wait()
            if self.tokens_limit is not None and sent >= self.tokens_limit:
                return
            sequences = {c: s for c, s in sequences.items() if c in self.firsts[name]}
            drawn = [self._drawn(assign, c, len(s)) for c, s in sequences.items()]
            if name not in self.live or not drawn:
                break
            await self.send(wire.Tokens(drawn=tuple(drawn)))
            sent += 1
            for one in drawn:
                sequences[one.choice].append(one.token)
                if one.finish is not None:
                    await self._persist(sequences.pop(one.choice)[:-1])
            await asyncio.sleep(0)
        await self._persist(list(assign.tokens))
        self.live.pop(name, None)
        await self.report()

    async def _persist(self, tokens: list[int]) -> None:
        keys = block_keys(self.layout.root(), tokens, self.layout.block_tokens)
        if self.store_late:
            self.unstored += keys
        else:
            self.store.update(keys)
            await self.send(wire.Stored(keys=tuple(keys)))

    async def flush(self) -> None:
        """Finish the write queue."""
        self.store.update(self.unstored)
        await self.send(wire.Stored(keys=tuple(self.unstored)))
        self.unstored = []


def replaced(message: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(message, **fields)
