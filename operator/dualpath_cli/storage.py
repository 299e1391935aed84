"""`dualpath storage`: a distributed block store outside of Kubernetes."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def storage() -> None:
    """Run and inspect a distributed block store (Mooncake Store).

    Example:  dualpath storage up --nodes 2 --size 4Gi
    """


@storage.command()
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 64), help="Store nodes.")
@click.option("--size", default="1Gi", show_default=True, metavar="BYTES", help="Bytes that a node keeps.")
@click.option(
    "--medium",
    default="DRAM",
    show_default=True,
    type=click.Choice(["DRAM", "NVMe"]),
    help="Where nodes keep blocks: memory, or files in --path.",
)
@click.option("--path", type=click.Path(path_type=Path, file_okay=False), help="Directory of nodes and etcd.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Own address, under which engines reach the store."
)
@click.option(
    "--port", default=50051, show_default=True, type=click.IntRange(1024, 65000), help="Port of the master."
)
@click.option(
    "--metrics-port",
    default=9003,
    show_default=True,
    type=click.IntRange(1024, 65000),
    help="Metrics and status of the master; the others take the ports that follow.",
)
@click.option(
    "--etcd",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, executable=True),
    help="The etcd program: run it, and a second master that takes over without a loss of blocks.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write endpoints, processes and pids there, as JSON, once all serve.",
)
@click.option(
    "--log",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the logs.",
)
def up(
    nodes: int,
    size: str,
    medium: str,
    path: Path | None,
    host: str,
    port: int,
    metrics_port: int,
    etcd: Path | None,
    ready_file: Path | None,
    form: str,
) -> None:
    """Run a store on this machine until Ctrl-C. Prints `ready HOST:PORT` when blocks can be stored.

    Engines use it by spec.storage.external.endpoints: [HOST:PORT]. More nodes may join from other machines:
    python -P -m dualpath_worker.storage node --master HOST:PORT --size BYTES.

    Exit codes: 0 stopped as asked, 1 a process kept failing, 2 something to change first.

    Example:  dualpath storage up --nodes 3 --size 16Gi --host 10.0.0.5
    """
    from dualpath_cli.store_processes import StoreOptions, run_store, size_of

    options = StoreOptions(
        nodes=nodes,
        size=size_of(size),
        medium=medium,
        path=path,
        host=host,
        port=port,
        metrics_port=metrics_port,
        etcd=etcd,
        ready_file=ready_file,
        log_form=form,
    )
    raise SystemExit(run_store(options))


_MASTER = click.option(
    "--master",
    "masters",
    multiple=True,
    default=("127.0.0.1:9003",),
    show_default=True,
    metavar="HOST:PORT",
    help="Metrics port of a master; can be repeated.",
)


@storage.command()
@_MASTER
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(masters: tuple[str, ...], as_json: bool) -> None:
    """Show masters, nodes, bytes and blocks of a store.

    Exit codes: 0 shown, 1 no master serves, 2 no master answers.

    Example:  dualpath storage status --master 10.0.0.5:9003
    """
    import json

    from dualpath_cli.store_view import gathered, show

    found = gathered(masters)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(found)
    raise SystemExit(0 if found["serving"] else 1)


@storage.command()
@click.argument("node")
@_MASTER
def drain(node: str, masters: tuple[str, ...]) -> None:
    """Move the blocks of NODE, named as in `dualpath storage status`, to the other nodes.

    Stop the node soon after: until then it is given new blocks. Blocks with a copy elsewhere are not moved.

    Exit codes: 0 the node can be stopped without a loss, 1 some blocks could not be moved, 2 nothing done.

    Example:  dualpath storage drain 10.0.0.5:15000
    """
    from dualpath_cli.store_view import leader_of
    from dualpath_worker.storage.drain import drain as emptied

    def progress(done: int, total: int) -> None:
        click.echo(f"looked at {done} of {total} blocks", err=True)

    result = emptied(leader_of(masters), node, progress)
    click.echo(
        f"moved {result.moved} blocks; {result.elsewhere} have a copy elsewhere; {result.left} are left"
    )
    raise SystemExit(1 if result.left else 0)
