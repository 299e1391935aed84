"""`dualpath fabric`: are this machine's networks as the spec says, and what does each traffic class get?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def fabric() -> None:
    """Check the networks that carry KV, and their traffic classes.

    Example:  dualpath fabric check examples/local.yaml
    """


@fabric.command()
@click.argument("file", type=_FILE)
@click.option("--on-mismatch", type=click.Choice(["Fail", "Degrade"]), help="Default: what FILE says.")
@click.option(
    "--peer", "peers", multiple=True, metavar="NIC=ADDRESS", help="An address that must answer through a NIC."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(file: Path, on_mismatch: str | None, peers: Sequence[str], as_json: bool) -> None:
    """Compare the NICs, routes and traffic classes of this machine with the DualPathCluster in FILE.

    Exit code 1 if something is not as FILE says; advice, with the lines to apply, does not change it.

    Example:  dualpath fabric check cluster.yaml --peer cnic0=10.20.0.3
    """
    words = ["--config", str(file), *(word for peer in peers for word in ("--peer", peer))]
    words += ["--on-mismatch", on_mismatch] if on_mismatch else []
    _run("check", [*words, "--json"] if as_json else words)


@fabric.command()
@click.argument("verb", type=click.Choice(["lines", "show", "apply", "remove"]))
@click.argument("file", type=_FILE)
def classes(verb: str, file: Path) -> None:
    """Print, read back, set or remove the traffic classes of TCP for the compute NICs of FILE.

    Setting them needs root and replaces the root queue of each compute NIC.

    Example:  dualpath fabric classes lines cluster.yaml
    """
    _run("classes", [verb, "--config", str(file)])


@fabric.command()
@click.option("--serve", metavar="ADDRESS", help="Receive on this address, until it is ended.")
@click.option("--to", metavar="ADDRESS", help="Send to a peer that serves; prints bytes/s and loss as JSON.")
@click.option("--seconds", type=click.FloatRange(min=1), default=2.0, show_default=True, help="Of each step.")
@click.option("--kv-flows", type=click.IntRange(1, 64), default=1, show_default=True, help="Of KV at once.")
@click.option("--config", type=_FILE, help="A DualPathCluster with fabric.trafficClasses; else its defaults.")
def probe(serve: str | None, to: str | None, seconds: float, kv_flows: int, config: Path | None) -> None:
    """Measure what each traffic class gets between two machines, alone and together.

    Example:  dualpath fabric probe --serve 10.20.0.3

    Example:  dualpath fabric probe --to 10.20.0.3 --kv-flows 4
    """
    if (serve is None) == (to is None):
        raise click.UsageError("use just one of --serve and --to")
    words = ["--config", str(config)] if config else []
    if serve is not None:
        _run("probe", [*words, "serve", "--address", serve])
    steps = ["--seconds", str(seconds), "--kv-flows", str(kv_flows)]
    _run("probe", [*words, "send", "--to", str(to), *steps])


def _run(name: str, words: Sequence[str]) -> Any:
    """One command of the worker's; its exit code is ours."""
    from dualpath_worker.fabric import command
    from dualpath_worker.fabric.probe import ProbeError

    try:
        code = {"check": command.check, "classes": command.classes, "probe": command.probe}[name](words)
    except ProbeError as error:  # of the network, not of what was asked for
        click.echo(f"error: {error}", err=True)
        code = 1
    click.get_current_context().exit(code)
