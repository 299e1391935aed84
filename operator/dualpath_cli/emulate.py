"""`dualpath emulate`: a whole cluster in an emulated network of this machine, and what can be done to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dualpath_cli.emulation.system import EmulatedPlan


@click.group(invoke_without_command=True)
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="The DualPathEmulation to run until Ctrl-C."
)
@click.option(
    "--model", metavar="DIR_OR_HF_ID", help="Checkpoint directory or hub id; instead of the cluster's."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of the cluster, for example spec.pathPolicy.mode=Split. Can be repeated.",
)
@click.option("--name", help="Name of the network; default: the file's, or the only one that runs.")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write URLs and pids there, as JSON, once everything serves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one line each.")
@click.option(
    "--table/--no-table", default=None, help="Show a table of all NICs; default: if stdout is a terminal."
)
@click.option(
    "--drain-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long running requests may go on after Ctrl-C or SIGTERM.",
)
@click.pass_context
def emulate(
    context: click.Context,
    file: Path | None,
    model: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    ready_file: Path | None,
    as_json: bool,
    table: bool | None,
    drain_seconds: float,
) -> None:
    """Run prefill, decode and storage nodes in network namespaces with rate-limited NICs. Needs root.

    Each node has a storage NIC (snic0), and nodes of engines a compute NIC (cnic0), with the rates of the
    file. Real bytes take real time, so what a second path is worth can be seen on a laptop. Everything is
    removed at the end; what a killed run has left is removed by the next one. The commands below work on it
    from another terminal, by NIC: p0.snic0 is that of node p0.

    Example:  sudo dualpath emulate -f examples/emulated.yaml --model ~/models/Qwen3-0.6B
    """
    if context.invoked_subcommand is not None:
        context.obj = name
        return
    if file is None:
        raise click.UsageError("give a file: dualpath emulate -f FILE, or one of its commands (--help)")
    import sys

    from dualpath_cli import checks
    from dualpath_cli.emulation import iproute, system
    from dualpath_cli.plan import Options

    iproute.check()
    checks.check_ready_file(ready_file)
    options = Options(ready_file=ready_file, as_json=as_json, drain_seconds=drain_seconds)
    emulation = system.read_emulation(file, model, overrides, name)
    for warning in emulation.warnings:
        click.echo(f"warning: {warning}", err=True)
    drawn = sys.stdout.isatty() and not as_json if table is None else table
    with system.network_plan(emulation, options) as plan:
        code = _supervise(plan, drawn=drawn)
    raise SystemExit(code)


def _supervise(plan: EmulatedPlan, *, drawn: bool) -> int:
    from dualpath_cli.emulation import live
    from dualpath_cli.supervisor import supervise

    view = live.View(network=plan.network, url=plan.api, token=plan.token)
    if not drawn:
        return supervise(plan, live.lines(view))
    log = plan.folder / "log"
    click.echo(f"logs: {log}")
    with live.quiet(log):
        code = supervise(plan, live.table(view))
    if code:
        click.echo("".join(log.read_text().splitlines(keepends=True)[-_TAIL:]), err=True)
    return code


_TAIL = 40
"""Lines of the log that are shown when something went wrong."""


@emulate.command("set")
@click.argument("nic")
@click.argument("rate")
@click.pass_obj
def set_rate(name: str | None, nic: str, rate: str) -> None:
    """Set the RATE of a NIC, in both directions; connections go on.

    Example:  sudo dualpath emulate set p0.snic0 50mbit
    """
    from dualpath_cli.emulation.wires import Wires

    Wires.of(name).set_rate(nic, rate)


@emulate.command()
@click.argument("nic")
@click.option("--for", "time", metavar="TIME", help="Restore it after this time, for example 20s.")
@click.pass_obj
def cut(name: str | None, nic: str, time: str | None) -> None:
    """Pull the cable of a NIC. With --for it is plugged in again, also after Ctrl-C.

    Example:  sudo dualpath emulate cut d0.cnic0 --for 20s
    """
    from dualpath_cli.emulation.system import stoppable, wait
    from dualpath_cli.emulation.wires import Wires

    network = Wires.of(name)
    if time is None:
        network.cut(nic)
        return
    seconds = _seconds(time)
    with stoppable():
        network.cut(nic)
        try:
            wait(seconds)
        finally:
            network.restore(nic)


@emulate.command()
@click.argument("nic")
@click.pass_obj
def restore(name: str | None, nic: str) -> None:
    """Plug the cable of a NIC in again.

    Example:  sudo dualpath emulate restore d0.cnic0
    """
    from dualpath_cli.emulation.wires import Wires

    Wires.of(name).restore(nic)


@emulate.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def status(name: str | None, as_json: bool) -> None:
    """Show what runs: each NIC's rate, what it has carried, and what waits. Without --name: all networks.

    Example:  sudo dualpath emulate status --json
    """
    from dualpath_cli.emulation import iproute, listing, places, system
    from dualpath_cli.emulation.wires import Wires

    iproute.check()
    with places.alone():  # so that none is half made, or goes meanwhile
        states = [places.find(name)] if name else places.all_running()
        networks = [Wires(state) for state in states]
        listing.print_status([(network, system.api_of(network)) for network in networks], as_json=as_json)


@emulate.command()
def clean() -> None:
    """Remove what killed runs have left: namespaces, processes, files. What runs stays.

    Example:  sudo dualpath emulate clean
    """
    from dualpath_cli.emulation import iproute, leftovers, places

    iproute.check()
    with places.alone():
        for name in leftovers.remove_all():
            click.echo(f"removed {name}")


@emulate.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """Run a COMMAND in a NODE, with its NICs and its /sys.

    Example:  sudo dualpath emulate exec p0 -- ip addr
    """
    import os

    from dualpath_cli.emulation.wires import Wires

    line = Wires.of(name).command(node, command)
    os.execv(line[0], line)


def _seconds(text: str) -> float:
    from dualpath_api.errors import SpecError
    from dualpath_api.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise SpecError(
            f"--for {text}: is no time", cause=str(error), remedy="for example --for 20s"
        ) from None
