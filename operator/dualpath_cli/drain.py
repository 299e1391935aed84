"""`dualpath drain`: let one engine Pod finish its work and be replaced."""

from __future__ import annotations

from typing import Any

import click

from dualpath_api.errors import SpecError
from dualpath_cli.kubernetes import Clusters, Json, clusters_of, kubernetes_options


@click.command()
@click.argument("name")
@click.argument("pod")
@click.option("--resume", is_flag=True, help="Let the Pod take requests again, if it is still there.")
@kubernetes_options
@click.option("--json", "as_json", is_flag=True, help="Print what the gateway says of the Pod's engines.")
def drain(
    name: str, pod: str, resume: bool, namespace: str | None, context: str | None, as_json: bool
) -> None:
    """Take the engine Pod POD of the DualPathCluster NAME out of service without losing a request.

    The Pod is marked (annotation dualpath.io/drain) and its engines are asked at once to take nothing new.
    When they have proven to hold no work, the operator deletes the Pod and makes another one; its requests
    may take as long as spec.drain.deadline says. Pods of the same replica go together.

    Example:  dualpath drain qwen3 qwen3-decode-1a2b3c4d-0 -n inference
    """
    import asyncio
    import json

    told = asyncio.run(_drain(name, pod, namespace, context, resume=resume))
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    verb = "takes requests again" if resume else "takes nothing new and will be replaced"
    click.echo(f"{pod} {verb}")
    for engine in told:
        click.echo(f"  {engine['id']}: {engine['inFlight']} requests, state {engine['state']}")
    if not told:
        click.echo("  no engine of it is connected to the gateway")


async def _drain(
    name: str, pod: str, namespace: str | None, context: str | None, *, resume: bool
) -> list[Json]:
    async with clusters_of(namespace, context) as clusters:
        await clusters.cluster(name)
        found = await clusters.pod(name, pod)
        await _mark(clusters, found, None if resume else "true")
        try:
            return await _ask(clusters, name, found["metadata"]["uid"], resume=resume)
        except SpecError as error:
            if resume:
                raise
            click.echo(f"the operator will ask: {error.what} ({error.cause})", err=True)
            return []


async def _mark(clusters: Clusters, pod: Json, value: str | None) -> None:
    """Tell the operator: what it is not told, it would put right again."""
    from dualpath_operator.kinds import POD
    from dualpath_operator.names import DRAIN

    meta = pod["metadata"]
    body: Json = {"metadata": {"uid": meta["uid"], "annotations": {DRAIN: value}}}
    await clusters.api.merge(POD, clusters.namespace, meta["name"], body)


async def _ask(clusters: Clusters, name: str, uid: str, *, resume: bool) -> list[Json]:
    report = await clusters.ask(name, "/control/v1/report")
    engines: list[Any] = [one for one in report["engines"] if one.get("podUid") == uid]
    body: Json = {} if resume else {"acceptNew": False, "serveReads": True, "podUid": uid}
    verb = "resume" if resume else "drain"
    return [
        await clusters.ask(name, f"/control/v1/engines/{one['id']}/{verb}", method="POST", body=body)
        for one in engines
    ]
