"""Emptying a node of a Mooncake Store: its blocks move to other nodes, so that nothing is lost when it stops.

The store cannot be told to give a node no new blocks: stop it soon. What has a copy elsewhere needs no move.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from dualpath_api.errors import SpecError
from dualpath_worker.storage.mooncake_client import TCP, MooncakeClient, connect, own_address
from dualpath_worker.storage.mooncake_link import DIRECT

_ASK_S = 10.0
_POLL_S = 0.2
_BATCH = 256  # moves under way at once
_STUCK_S = 60.0  # without any move that ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What became of a node's blocks."""

    moved: int
    elsewhere: int  # have a copy on another node
    left: int  # could not be moved; they are lost when the node stops


def status_of(url: str) -> Mapping[str, Any]:
    """What a master says; `url` is that of its metrics port. Raises SpecError if there is none."""
    text = _fetched(f"{url}/status")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not {"role", "serving"} <= answer.keys():
        raise SpecError(
            f"{url} is no master of a store",
            cause="something else answers there",
            remedy="give the address of a master's metrics port with --master",
        )
    return answer


def drain(url: str, node: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Drained:
    """Move the blocks of the node with that name. `progress(done, total)`. Raises SpecError."""
    status = status_of(url)
    names = {each["name"]: each["address"] for each in status["nodes"]}
    others = [name for name, address in names.items() if name != node]
    if node not in names or not others:
        raise SpecError(
            f"the blocks of {node} cannot be moved",
            cause=f"the nodes of the store are {', '.join(names) or 'none'}",
            remedy="name one of at least two nodes",
        )
    master = f"{urlsplit(url).hostname}:{status['port']}"
    client = connect(master, TCP, name=own_address(master))
    if client is None:
        raise SpecError(
            f"cannot join the store at {master}",
            cause="its master does not answer",
            remedy="see the master's log",
        )
    try:
        blocks = _fetched(f"{url}/keys").split()
        return _emptied(client, names, node, others, blocks, progress)
    finally:
        client.close()


def _emptied(
    client: MooncakeClient,
    names: Mapping[str, str],
    node: str,
    others: Sequence[str],
    blocks: Sequence[str],
    progress: Callable[[int, int], None],
) -> Drained:
    moved = elsewhere = left = 0
    targets = itertools.cycle(others)
    for done, batch in _batches(blocks):
        tasks = []
        for block, holders in client.holders(batch).items():
            if names[node] not in holders:
                continue
            if len(holders) > 1:
                elsewhere += 1
            elif (task := client.move(block, node, next(targets))) is None:
                left += 1
            else:
                tasks.append(task)
        failed = _finished(client, tasks)
        moved, left = moved + len(tasks) - failed, left + failed
        progress(done, len(blocks))
    return Drained(moved=moved, elsewhere=elsewhere, left=left)


def _finished(client: MooncakeClient, tasks: Sequence[Any]) -> int:
    """Wait for moves; how many have failed, or not ended in time."""
    waiting, failed, last = list(tasks), 0, time.monotonic()
    while waiting and time.monotonic() - last < _STUCK_S:
        states = [(task, client.moved(task)) for task in waiting]
        failed += sum(state is False for _, state in states)
        still = [task for task, state in states if state is None]
        if len(still) < len(waiting):
            last = time.monotonic()
        waiting = still
        if waiting:
            time.sleep(_POLL_S)
    return failed + len(waiting)


def _batches(blocks: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    for start in range(0, len(blocks), _BATCH):
        batch = blocks[start : start + _BATCH]
        yield start + len(batch), batch


def _fetched(url: str) -> str:
    try:
        with DIRECT.open(url, timeout=_ASK_S) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError, HTTPException) as error:
        raise SpecError(
            f"no master of a store answers at {url}",
            cause=str(getattr(error, "reason", error)),
            remedy="give the address of its metrics port with --master",
        ) from None
