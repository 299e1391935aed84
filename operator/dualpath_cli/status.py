"""`dualpath status`: one DualPathCluster at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dualpath_cli.kubernetes import Json, clusters_of, kubernetes_options


@click.command()
@click.argument("name")
@kubernetes_options
@click.option("--json", "as_json", is_flag=True, help="Print the object as the API server has it.")
def status(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Show how the DualPathCluster NAME is: conditions, roles, revision, paths and endpoints.

    Exit codes: 0 shown (whether it is ready or not), 2 there is nothing to show.

    Example:  dualpath status qwen3 -n inference
    """
    import asyncio
    import json

    found = asyncio.run(_fetched(name, namespace, context))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(found)


async def _fetched(name: str, namespace: str | None, context: str | None) -> Json:
    async with clusters_of(namespace, context) as clusters:
        return await clusters.cluster(name)


def show(found: Json) -> None:
    """Print it for people."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    meta, told = found["metadata"], found.get("status") or {}
    ready: dict[str, str] = next((c for c in told.get("conditions", ()) if c["type"] == "Ready"), {})
    word = {"True": "ready", "False": "not ready"}.get(ready.get("status", ""), "unknown")
    why = ready.get("message") or ready.get("reason") or "no operator has looked at it yet"
    console.print(f"{meta['namespace']}/{meta['name']}: {word} ({why})", style="bold")
    if told.get("observedGeneration", 0) < meta.get("generation", 0):
        console.print("The newest spec has not been seen by the operator yet.")
    for line in lines(told):
        console.print(line)
    console.print(_roles(told.get("roles", {})))
    console.print(_conditions(told.get("conditions", ())))


def lines(told: Mapping[str, Any]) -> list[str]:
    """Revision, paths, balance and endpoints, as far as they are known."""
    found = []
    revision = told.get("revision", {})
    if revision.get("updated"):
        current = revision.get("current") or "none yet"
        moving = "" if current == revision["updated"] else f", rolling to {revision['updated']}"
        found.append(f"revision:  {current}{moving}")
    paths = told.get("paths", {})
    share = paths.get("decodeSharePermille", {})
    if paths.get("mode"):
        told_share = ", ".join(
            f"{word} {share[word] / 10:g} %" for word in ("target", "observed") if share.get(word) is not None
        )
        hits = paths.get("kvHitPermille")
        parts = [f"mode {paths['mode']}", f"decode side's share: {told_share}" if told_share else ""]
        parts.append("" if hits is None else f"{hits / 10:g} % of prompts from storage")
        found.append("paths:     " + "; ".join(part for part in parts if part))
    balance = told.get("balance", {})
    if balance.get("pdPermille") is not None:
        ratio = f"P/D {balance['pdPermille'] / 1000:.2f}"
        if balance.get("upperPermille") is not None:
            ratio += f", free of bottlenecks from {balance['lowerPermille'] / 1000:.2f}"
            ratio += f" to {balance['upperPermille'] / 1000:.2f}"
        found.append(f"balance:   {ratio}")
    found += [f"endpoint:  {one['url']} ({one['name']})" for one in told.get("endpoints", ())]
    return found


def _roles(roles: Mapping[str, Mapping[str, int]]) -> Any:
    from rich.table import Table

    table = Table("role", *_FIGURES, title="engine groups", title_justify="left")
    for role in ("prefill", "decode"):
        table.add_row(role, *(str(roles.get(role, {}).get(figure, 0)) for figure in _FIGURES))
    return table


_FIGURES = ("desired", "ready", "admitted", "updated", "draining", "gpus")


def _conditions(conditions: Any) -> Any:
    from rich.table import Table

    table = Table("condition", "status", "since", "reason", title="conditions", title_justify="left")
    for one in conditions:
        reason = f"{one['reason']}: {one['message']}" if one.get("message") else one["reason"]
        table.add_row(one["type"], one["status"], one.get("lastTransitionTime", ""), reason)
    return table
