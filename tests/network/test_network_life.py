"""A network leaves nothing behind, however its owner ends, and never touches what is not its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from networks import MBIT, layout
from test_network_rates import output
from traffic import receiver, send
from waiting import until

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_cli.emulation import leftovers, places
from dualpath_cli.emulation.iproute import NETNS
from dualpath_cli.emulation.layout import Nic, Node, engine_node
from dualpath_cli.emulation.network import Network
from dualpath_cli.emulation.wires import Wires

OWNER = Path(__file__).with_name("owner.py")


def traces(name: str) -> list[Path]:
    """All that is outside of the namespaces of a network."""
    found = [*NETNS.glob(f"dpe.{name}"), *NETNS.glob(f"dpe.{name}.*")]
    return found + [path for path in (places.ROOT / name,) if path.exists()]


@contextmanager
def owner(name: str):
    """A process that owns a network in which another one runs: (the process, the other's pid)."""
    process = subprocess.Popen([sys.executable, str(OWNER), name], stdout=subprocess.PIPE, text=True)
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with places.alone():
            leftovers.remove_all()


def alive(pid: int) -> bool:
    """Whether the process runs: one that has ended may still wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_is_left_at_the_end_not_even_processes_that_have_just_been_started():
    with Network(layout()) as net:
        host_link = Path("/sys/class/net", net.state.host_link)
        assert host_link.exists()
        assert len(traces(net.name)) == 5
        processes = [net.run(node, ["sleep", "1000"], stderr=subprocess.DEVNULL) for node in net.nodes * 3]
    assert all(process.wait(10) != 0 for process in processes)
    assert traces(net.name) == []
    assert not host_link.exists()


def test_nothing_is_left_when_the_block_fails():
    with pytest.raises(ZeroDivisionError), Network(layout()) as net:
        raise ZeroDivisionError
    assert traces(net.name) == []


def test_nothing_is_left_when_it_cannot_be_made():
    wanted = layout()
    stranger = NETNS / f"dpe.{wanted.name}.s0"
    subprocess.run(["ip", "netns", "add", stranger.name], check=True)
    try:
        with pytest.raises(SpecError, match="is there already"):
            Network(wanted).start()
        assert traces(wanted.name) == [stranger]
    finally:
        subprocess.run(["ip", "netns", "del", stranger.name], check=True)


def test_what_a_killed_owner_has_left_goes_with_the_next_start(make):
    name = f"test-{os.getpid()}-killed"
    with owner(name) as (process, sleeping):
        process.kill()
        process.wait()
        assert alive(sleeping)
        assert len(traces(name)) == 3
        make()
        assert traces(name) == []
        until(lambda: not alive(sleeping), 10)


def test_a_stopped_owner_is_alive_and_keeps_its_network(make):
    name = f"test-{os.getpid()}-stopped"
    with owner(name) as (process, sleeping):
        process.send_signal(signal.SIGSTOP)
        make()
        assert alive(sleeping)
        assert len(traces(name)) == 3
        process.send_signal(signal.SIGCONT)


def test_a_namespace_of_the_same_name_that_was_made_anew_is_left_alone(make):
    name = f"test-{os.getpid()}-renewed"
    with owner(name) as (process, sleeping):
        process.kill()
        process.wait()
        stranger = f"dpe.{name}.p0"
        holding = subprocess.Popen(
            ["ip", "netns", "exec", stranger, "sleep", "1000"]
        )  # its number stays in use
        subprocess.run(["ip", "netns", "del", stranger], check=True)
        subprocess.run(["ip", "netns", "add", stranger], check=True)
        try:
            make()
            assert traces(name) == [NETNS / stranger]
        finally:
            os.kill(sleeping, signal.SIGKILL)  # nobody else finds it: its namespace has lost its name
            holding.kill()
            holding.wait()
            subprocess.run(["ip", "netns", "del", stranger], check=True)


def test_two_networks_live_side_by_side(make):
    one, other = make(), make()
    assert one.state.host_address != other.state.host_address
    one.set_rate("p0.snic0", "20mbit")
    transfers = [send(net, "s0", "p0", "snic0", 2 << 20) for net in (one, other)]
    slow, fast = (transfer.bits_per_s() for transfer in transfers)
    assert slow < 22 * MBIT
    assert fast > slow
    one.close()
    assert send(other, "s0", "p0", "snic0", 1 << 20).bits_per_s() > 0


def test_a_name_is_used_once(net):
    with pytest.raises(SpecError, match="running already"):
        Network(net._layout).start()
    assert Wires.of(net.name).links().keys() == net.links().keys()


def waits_for_its_turn(pid: int) -> bool:
    """Whether a process waits for `places.alone`; the kernel lists who waits behind an arrow."""
    number = (places.ROOT / ".lock").stat().st_ino
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(words[5] == str(pid) and words[6].endswith(f":{number}") for words in waiting)


def test_a_network_is_not_removed_while_another_is_made(make):
    net = make()
    closing = threading.Thread(target=net.close)
    with places.alone():
        closing.start()
        until(lambda: waits_for_its_turn(os.getpid()), 30)
        assert places.read(net.name) is not None
        assert len(traces(net.name)) == 5
    closing.join(60)
    assert traces(net.name) == []


def status(*words: str) -> subprocess.Popen[str]:
    """A `dualpath emulate ... status`."""
    line = [sys.executable, "-c", "from dualpath_cli.main import main; main()", "emulate", *words]
    return subprocess.Popen([*line, "status", "--json"], stdout=subprocess.PIPE, text=True)


def test_the_status_leaves_out_what_is_not_written_down_yet(net):
    name = f"test-{os.getpid()}-begun"
    with places.alone():
        handle = places.lock(name)
        asked = status()
        until(lambda: waits_for_its_turn(asked.pid), 30)
    try:
        told = asked.communicate(timeout=60)[0]
        assert asked.returncode == 0
        assert net.name in told
        assert name not in told
    finally:
        os.close(handle)
        places.forget(name)


def test_this_machine_reaches_every_node_and_no_node_reaches_beyond(net):
    for node in net.nodes:
        with receiver(net, node, "mnic0", size=5) as (address, process):
            with socket.create_connection(address) as connection:
                connection.sendall(b"hello")
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            assert process.wait(30) == 0
        assert "default" not in output(net, node, "ip", "route")


def test_many_nodes_start_within_the_time_of_a_few_commands(make):
    nodes = [engine_node(f"{role}{n}", snic=10**8, cnic=10**9) for role in "pd" for n in range(8)]
    assert len(make(*nodes).nics) == 32


def test_only_root_makes_networks():
    code = (
        "from dualpath_cli.emulation.network import Network\n"
        "from networks import layout\n"
        "Network(layout()).start()"
    )
    done = subprocess.run(
        ["unshare", "--user", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert UnsupportedError.__name__ in done.stderr
    assert "need root" in done.stderr


@pytest.mark.parametrize(
    "nodes",
    [
        (Node(name="P0", nics=()),),
        (Node(name="much-too-long", nics=()),),
        (Node(name="p0", nics=()), Node(name="p0", nics=())),
        (Node(name="p0", nics=(Nic(name="snic0", fabric="storage"), Nic(name="snic0", fabric="storage"))),),
        (Node(name="p0", nics=(Nic(name="averylongnicname", fabric="storage"),)),),
    ],
    ids=["upper case", "long", "twice", "NIC twice", "long NIC"],
)
def test_names_that_the_kernel_or_people_could_not_use_are_refused(nodes):
    with pytest.raises(SpecError, match="cannot be made"):
        layout(*nodes)
