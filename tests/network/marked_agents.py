"""A KV transfer with marks, one end a process. Arguments: serve NIC | pull NIC PEER, as hex; blocks are 64 KiB."""

from __future__ import annotations

import sys
import threading

import msgspec
import numpy as np

from dualpath_api.spec.fabric import TrafficClasses
from dualpath_api.wire import Peer
from dualpath_worker.blocks import BlockPool
from dualpath_worker.fabric.classes import transfer_options
from dualpath_worker.transfer.agent import TransferAgent
from dualpath_worker.transfer.exit import leave
from dualpath_worker.transfer.results import Outcome

BLOCKS, BLOCK_BYTES = 128, 64 << 10

pool = BlockPool(slots=BLOCKS, layers=1, layer_block_bytes=BLOCK_BYTES)
agent = TransferAgent(sys.argv[1], device=sys.argv[2], options=transfer_options(TrafficClasses()))
agent.register(pool)
if sys.argv[1] == "serve":
    agent.expect(1)
    print(msgspec.msgpack.encode(agent.peer("1")).hex(), flush=True)
    sys.stdin.readline()
else:
    peer = msgspec.msgpack.decode(bytes.fromhex(sys.argv[3]), type=Peer)
    agent.add_peer(peer)
    done, outcomes = threading.Event(), []

    def ended(result: object) -> None:
        outcomes.append(result)
        done.set()

    every = np.arange(BLOCKS, dtype=np.int32)
    agent.pull(peer.engine, every, every, deadline_s=30, on_done=ended, on_settled=ended)
    assert done.wait(60)
    assert outcomes[0].outcome is Outcome.DONE, outcomes
    print(outcomes[0].bytes, flush=True)
agent.close()
leave(0)
