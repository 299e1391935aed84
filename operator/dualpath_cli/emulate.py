"""`dualpath emulate`: a whole cluster in an emulated network of this machine."""

from __future__ import annotations

from pathlib import Path

import click


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
    drain_seconds: float,
) -> None:
    """Run prefill, decode and storage nodes in network namespaces with rate-limited NICs. Needs root.

    Each node has a storage NIC (snic0), and nodes of engines a compute NIC (cnic0), with the rates of the
    file. Real bytes take real time, so what a second path is worth can be seen on a laptop. Everything is
    removed at the end; what a killed run has left is removed by the next one.

    Example:  sudo dualpath emulate -f examples/emulated.yaml --model ~/models/Qwen3-0.6B
    """
    if context.invoked_subcommand is not None:
        context.obj = name
        return
    if file is None:
        raise click.UsageError(
            "give a file: dualpath emulate -f FILE, or one of the commands below --help shows"
        )
    from dualpath_cli import checks
    from dualpath_cli.emulation import iproute, system
    from dualpath_cli.plan import Options
    from dualpath_cli.supervisor import supervise

    iproute.check()
    checks.check_ready_file(ready_file)
    options = Options(ready_file=ready_file, as_json=as_json, drain_seconds=drain_seconds)
    emulation = system.read_emulation(file, model, overrides, name)
    for warning in emulation.warnings:
        click.echo(f"warning: {warning}", err=True)
    with system.network_plan(emulation, options) as plan:
        code = supervise(plan)
    raise SystemExit(code)
