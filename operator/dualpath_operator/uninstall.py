"""`python -P -m dualpath_operator.uninstall --all | --namespaces A,B`: may the operator be uninstalled?

Not while DualPathClusters exist: nobody would remove their finalizer, and neither they nor their namespaces
could ever be deleted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from dualpath_api.errors import DualPathError
from dualpath_operator.kinds import CLUSTER
from dualpath_operator.kube import Api, KubeError

MOST = 20
"""Clusters that are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when it may, 1 while clusters exist, 2 when that cannot be known."""
    parser = argparse.ArgumentParser(
        prog="python -P -m dualpath_operator.uninstall",
        description="Fail while DualPathClusters exist, which the operator has to delete before it goes.",
        epilog="Example:  python -P -m dualpath_operator.uninstall --namespaces team-a,team-b",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--all", action="store_true", help="look in all namespaces")
    where.add_argument("--namespaces", metavar="A,B", type=_names, help="look in these")
    parser.add_argument("--force", action="store_true", help="only warn")
    options = parser.parse_args(arguments)
    try:
        found = asyncio.run(clusters((None,) if options.all else options.namespaces))
    except DualPathError as error:
        sys.stderr.write(f"error: {error}\n")
        return 0 if options.force else 2
    except KubeError as error:
        sys.stderr.write(f"error: it is not known whether DualPathClusters exist\n  cause:  {error}\n")
        return 0 if options.force else 2
    if not found:
        sys.stdout.write("no DualPathCluster exists; the operator may go\n")
        return 0
    sys.stderr.write(told(found))
    return 0 if options.force else 1


async def clusters(namespaces: Sequence[str | None]) -> list[tuple[str, str]]:
    """(namespace, name) of all that exist; None where the kind is gone. Raises KubeError or SpecError."""
    found = []
    async with await Api.connect() as api:
        for namespace in namespaces:
            try:
                listed = await api.list(CLUSTER, namespace, metadata_only=True)
            except KubeError as error:
                if error.status != 404:
                    raise
                continue  # without the kind there are no objects
            found += [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed]
    return sorted(found)


def told(found: Sequence[tuple[str, str]]) -> str:
    """The message, with what to do."""
    names = [f"  {namespace}/{name}\n" for namespace, name in found[:MOST]]
    more = f"  and {len(found) - MOST} more\n" if len(found) > MOST else ""
    delete = f"kubectl delete dualpathcluster -n {found[0][0]} {found[0][1]}"
    return (
        f"error: {len(found)} DualPathClusters exist\n"
        f"{''.join(names)}{more}"
        "  cause:  without the operator they, and their namespaces, could not be deleted\n"
        f"  remedy: delete them first ({delete}), or set uninstall.force to leave them behind\n"
    )


def _names(text: str) -> list[str]:
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise argparse.ArgumentTypeError("name at least one namespace")
    return names


if __name__ == "__main__":
    sys.exit(main())
