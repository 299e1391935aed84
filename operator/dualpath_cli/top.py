"""`dualpath top`: what the engines of a DualPathCluster do now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dualpath_cli.kubernetes import Clusters, Json, clusters_of, kubernetes_options

if TYPE_CHECKING:
    from dualpath_api.report import ControlReport, SideReport

EVERY_S = 2.0


@click.command()
@click.argument("name")
@kubernetes_options
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's report as it is, once.")
def top(name: str, namespace: str | None, context: str | None, once: bool, as_json: bool) -> None:
    """Show the load of the DualPathCluster NAME by role: engines, queues, NICs, and who reads how much.

    The figures come from its gateway and are renewed every 2 seconds until Ctrl-C.

    Example:  dualpath top qwen3 -n inference --once
    """
    import asyncio
    import contextlib

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(name, namespace, context, once=once, as_json=as_json))


async def _watch(name: str, namespace: str | None, context: str | None, *, once: bool, as_json: bool) -> None:
    import asyncio
    import json

    from rich.console import Console, Group
    from rich.live import Live

    async with clusters_of(namespace, context) as clusters:
        found = await _report(clusters, name)
        if as_json:
            click.echo(json.dumps(found, indent=2))
            return
        if once:
            Console(highlight=False, markup=False).print(Group(*shown(name, found)))
            return
        with Live(Group(*shown(name, found)), auto_refresh=False) as live:
            while True:
                await asyncio.sleep(EVERY_S)
                found = await _report(clusters, name)
                live.update(Group(*shown(name, found)), refresh=True)


async def _report(clusters: Clusters, name: str) -> Json:
    await clusters.cluster(name)
    return await clusters.ask(name, "/control/v1/report")


def shown(name: str, found: Json) -> list[Any]:
    """The headline, and the table of both roles."""
    import json

    from rich.table import Table
    from rich.text import Text

    from dualpath_api.report import decode_report

    report = decode_report(json.dumps(found).encode())
    table = Table("", "prefill", "decode", title=headline(name, report), title_justify="left")
    sides = (report.sides.prefill, report.sides.decode)
    for label, figure in _ROWS:
        table.add_row(label, *(Text(figure(side)) for side in sides))
    return [table]


def headline(name: str, report: ControlReport) -> str:
    """Queue, share and tuning in one line."""
    share, tuning = report.read.recent_decode_share, report.tuning
    parts = [
        f"{name}: {report.queue.running} running, {report.queue.waiting} waiting",
        f"decode side reads {_percent(share)}",
        f"{tuning.path_policy} {tuning.decode_min_permille / 10:g} to {tuning.decode_max_permille / 10:g} %",
    ]
    return "; ".join(parts)


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.0f} %"


def _permille(value: int | None) -> str:
    return "-" if value is None else f"{value / 10:.0f} %"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f} GB/s"


def _queue(side: SideReport) -> str:
    wait = "" if side.read_queue_s is None else f" ({side.read_queue_s:.2f} s)"
    return f"{side.read_q} tokens{wait}"


_ROWS: tuple[tuple[str, Any], ...] = (
    ("engines", lambda side: f"{side.engines}, {side.accepting} take requests"),
    ("requests", lambda side: str(side.seq_e)),
    ("tokens in work", lambda side: str(side.tok_e)),
    ("computing", lambda side: _permille(side.busy_permille)),
    ("KV pages used", lambda side: _permille(side.kv_cache_permille)),
    ("block buffers used", lambda side: _permille(side.buffer_permille)),
    ("reads from storage", lambda side: _rate(side.read_bytes_per_s)),
    ("waits to be read", _queue),
    ("storage NICs", lambda side: _percent(side.utilisation.storage)),
    ("storage NICs, p95", lambda side: _permille(side.nics.storage.p95_permille)),
    ("compute NICs", lambda side: _percent(side.utilisation.compute)),
    ("compute NICs, p95", lambda side: _permille(side.nics.compute.p95_permille)),
)
