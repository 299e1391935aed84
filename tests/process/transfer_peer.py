"""A process with a TransferAgent that a test drives by lines of JSON; also the driver's side of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import zlib
from functools import cached_property
from pathlib import Path

PATIENCE_S = 60


class TransferProcess:
    """Starts this file as a process and talks to it."""

    def __init__(self, engine, *, slots=8, layers=5, block=1000, tls="tcp,self", **settings):
        self.engine, self.slots, self.layers = engine, slots, layers
        environ = {**os.environ, "UCX_TLS": tls, **settings}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
        )
        self.pid = self.process.pid
        self._events = queue.Queue()
        self._kept = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.tell("open", engine=engine, slots=slots, layers=layers, block=block)

    @cached_property
    def peer(self):
        """wire.Peer in hex; waits until the process is up, so that several can start at once."""
        return self.wait("open")["peer"]

    def _read(self):
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def tell(self, verb, **fields):
        self.process.stdin.write(json.dumps({"verb": verb, **fields}) + "\n")
        self.process.stdin.flush()

    def wait(self, event, **fields):
        """The first event of this kind with these fields; events of other kinds are kept for later."""

        def fits(e):
            return e["event"] == event and all(e[k] == v for k, v in fields.items())

        for kept in self._kept:
            if fits(kept):
                self._kept.remove(kept)
                return kept
        while True:
            got = self._events.get(timeout=PATIENCE_S)
            assert got is not None, f"process of {self.engine} ended while the test waited for {event}"
            if fits(got):
                return got
            self._kept.append(got)

    def kept(self):
        """Events that have arrived and that nobody waited for."""
        self.ask("stats")
        return self._kept

    def ask(self, verb, **fields):
        self.tell(verb, **fields)
        return self.wait(verb)

    def meet(self, *others):
        for other in others:
            self.ask("add", peer=other.peer)

    def pull(self, peer, local, remote, name="pull", deadline=30.0, notify=None):
        self.tell(
            "pull", peer=peer.engine, local=local, remote=remote, name=name, deadline=deadline, notify=notify
        )

    def crcs(self, indices=None):
        """CRC of each Layer Block by index."""
        indices = range(self.slots * self.layers) if indices is None else indices
        return self.ask("crcs", indices=list(indices))["crcs"]

    def stop(self):
        assert self.peer
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        assert self.peer
        self.process.kill()
        self.process.wait()

    def close(self):
        """End the process in the ordinary way; its exit code."""
        if self.process.poll() is None:
            self.go_on()
            self.tell("exit")
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return code


def say(event, **fields):
    os.write(1, (json.dumps({"event": event, **fields}) + "\n").encode())


class SayWhoIsLost(logging.Handler):
    """Passes the agent's log lines about lost connections on."""

    def emit(self, record):
        if "is lost" in record.msg:
            engine, incarnation, _ = record.args
            say("lost", peer=engine, incarnation=incarnation)


class Child:
    def open(self, engine, slots, layers, block):
        import msgspec
        import torch

        from dualpath_worker.blocks import BlockPool
        from dualpath_worker.transfer import TransferAgent

        torch.set_num_threads(1)
        self.pool = BlockPool(slots=slots, layers=layers, layer_block_bytes=block)
        self.agent = TransferAgent(engine)
        self.agent.register(self.pool)
        self.agent.on_notification(lambda peer, data: say("notified", peer=peer, data=data.decode()))
        logging.getLogger("dualpath_worker.transfer.mover").addHandler(SayWhoIsLost())
        peer = msgspec.msgpack.encode(self.agent.peer(f"{engine}.{os.getpid()}"))
        say("open", peer=peer.hex())

    def reconnect(self, incarnation):
        import msgspec

        say("reconnect", peer=msgspec.msgpack.encode(self.agent.peer(incarnation)).hex())

    def fill(self, seed):
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.pool.tensor.random_(0, 256, generator=generator)
        say("fill")

    def add(self, peer):
        import msgspec

        from dualpath_api.wire import Peer

        try:
            self.agent.add_peer(msgspec.msgpack.decode(bytes.fromhex(peer), type=Peer))
            say("add")
        except Exception as error:
            say("refused", why=str(error))

    def remove(self, peer, incarnation):
        self.agent.remove_peer(peer, incarnation)

    def pull(self, peer, local, remote, name, deadline, notify):
        import numpy as np

        def ended(event):
            return lambda r: say(event, name=name, outcome=r.outcome, why=r.reason, seconds=r.seconds)

        self.agent.pull(
            peer,
            np.array(local, np.int32),
            np.array(remote, np.int32),
            deadline_s=deadline,
            on_done=ended("done"),
            on_settled=ended("settled"),
            notify=None if notify is None else notify.encode(),
        )

    def notify(self, peer, data):
        self.agent.notify(peer, data.encode())

    def expect(self, change):
        self.agent.expect(change)

    def crcs(self, indices):
        blocks = self.pool.tensor.view(-1, self.pool.layer_block_bytes).numpy()
        say("crcs", crcs=[zlib.crc32(blocks[i].data) for i in indices])

    def stats(self):
        stats = self.agent.stats
        figures = {name: getattr(stats, name) for name in stats.__slots__}
        say("stats", stuck_s=self.agent.stuck_s(), **figures)

    def exit(self):
        from dualpath_worker.transfer import leave

        self.agent.close()
        leave(0)


def main():
    child = Child()
    for line in sys.stdin:
        command = json.loads(line)
        getattr(child, command.pop("verb"))(**command)
    os._exit(1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
