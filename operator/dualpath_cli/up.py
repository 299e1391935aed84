"""`dualpath up`: a whole cluster as processes of this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--model", metavar="DIR_OR_HF_ID", help="Checkpoint directory or hub id; instead of spec.model.uri."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of the spec, for example spec.pathPolicy.mode=Split. Can be repeated.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address that the OpenAI API listens on."
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 takes any that is free.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write URLs and pids there, as JSON, once everything serves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one line each.")
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the logs.",
)
@click.option(
    "--drain-seconds",
    default=30.0,
    show_default=True,
    envvar="DUALPATH_GATEWAY_STOP_S",
    show_envvar=True,
    type=click.FloatRange(min=0),
    help="How long running requests may go on after Ctrl-C or SIGTERM.",
)
def up(
    file: Path | None,
    model: str | None,
    overrides: tuple[str, ...],
    host: str,
    port: int,
    ready_file: Path | None,
    as_json: bool,
    form: str,
    drain_seconds: float,
) -> None:
    """Start the gateway and all engines of a DualPathCluster FILE on this machine.

    Prints `ready http://HOST:PORT/v1` when requests can be sent; logs go to stderr. Ctrl-C finishes what runs
    and stops; a second Ctrl-C stops at once. Without FILE, --model is served by one prefill and one decode
    engine. Relative paths in FILE are relative to the current directory.

    Exit codes: 0 stopped as asked, 1 a process kept failing, 2 something to change first.

    Example:  dualpath up examples/local.yaml --set spec.pathPolicy.mode=Split --port 8080
    """
    from dualpath_cli.plan import Options, make_plan
    from dualpath_cli.supervisor import supervise

    options = Options(
        host=host,
        port=port,
        ready_file=ready_file,
        as_json=as_json,
        log_form=form,
        drain_seconds=drain_seconds,
    )
    with make_plan(file, model, overrides, options) as plan:
        code = supervise(plan)
    raise SystemExit(code)
