"""What `dualpath storage status` shows: the answers of a store's masters in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dualpath_api.errors import DualPathError, SpecError


def gathered(masters: Sequence[str]) -> dict[str, Any]:
    """All masters, and the store as the one that leads sees it. Raises SpecError if none answers."""
    from dualpath_worker.storage.drain import status_of

    said: list[dict[str, Any]] = []
    failures: list[DualPathError] = []
    for master in masters:
        try:
            said.append({"master": master, **status_of(f"http://{master}")})
        except SpecError as error:
            failures.append(error)
            said.append({"master": master, "role": "does not answer", "serving": False})
    if len(failures) == len(masters):
        raise failures[0]
    leader: Mapping[str, Any] = next((one for one in said if one["serving"]), {})
    nodes = list(leader.get("nodes", ()))
    return {
        "serving": bool(leader),
        "masters": [{"address": one["master"], "role": one["role"]} for one in said],
        "keys": leader.get("keys", 0),
        "usedBytes": sum(node["usedBytes"] for node in nodes),
        "sizeBytes": sum(node["sizeBytes"] for node in nodes),
        "nodes": nodes,
    }


def leader_of(masters: Sequence[str]) -> str:
    """URL of the master that serves. Raises SpecError without one."""
    from dualpath_worker.storage.drain import status_of

    for master in masters:
        try:
            if status_of(f"http://{master}")["serving"]:
                return f"http://{master}"
        except SpecError:
            continue
    raise SpecError(
        f"none of {', '.join(masters)} leads a store",
        cause="they do not answer, or stand by",
        remedy="give all masters: --master HOST:9003 --master HOST:9004",
    )


def show(found: Mapping[str, Any]) -> None:
    """Print it for people."""
    from rich.console import Console
    from rich.table import Table

    from dualpath_api.units import format_bytes

    console = Console(highlight=False, markup=False)
    masters = ", ".join(f"{one['address']} ({one['role']})" for one in found["masters"])
    console.print(f"masters: {masters}")
    console.print(f"blocks:  {found['keys']}")
    table = Table("node", "status", "used", "size", "share", title="nodes", title_justify="left")
    for node in found["nodes"]:
        share = node["usedBytes"] / node["sizeBytes"] if node["sizeBytes"] else 0.0
        sizes = (f"{node['usedBytes'] / (1 << 20):.1f} MiB", format_bytes(node["sizeBytes"]))
        table.add_row(node["name"], node["status"], *sizes, f"{share:.1%}")
    console.print(table)
