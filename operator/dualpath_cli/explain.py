"""`dualpath explain`: what happened to one request, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dualpath_api.errors import SpecError
from dualpath_cli.kubernetes import clusters_of, kubernetes_options

_TOLD_ELSEWHERE = {"at", "after_s", "state", "job", "attempt", "reasons"}


@click.command()
@click.argument("request")
@click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Where the gateway listens; /v1 may follow.",
)
@click.option("--cluster", metavar="NAME", help="Ask the gateway of this DualPathCluster in Kubernetes.")
@kubernetes_options
@click.option("--json", "as_json", is_flag=True, help="Print the gateway's answer as it is.")
def explain(
    request: str, url: str, cluster: str | None, namespace: str | None, context: str | None, as_json: bool
) -> None:
    """Tell which engines served REQUEST, which side read how many bytes from storage, and why.

    REQUEST is the id of a response, for example chatcmpl-4f1c. The token of a protected gateway is read from
    the file that DUALPATH_CONTROL_TOKEN_FILE names; with --cluster, from the cluster's Secret.

    Example:  dualpath explain chatcmpl-4f1c --url http://127.0.0.1:8080

    Example:  dualpath explain chatcmpl-4f1c --cluster qwen3 -n inference
    """
    import asyncio
    import json

    from dualpath_cli.asking import ask

    if cluster is None:
        found = ask(url, request)
    else:
        found = asyncio.run(_ask_cluster(request, cluster, namespace, context))
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)


async def _ask_cluster(
    request: str, cluster: str, namespace: str | None, context: str | None
) -> dict[str, Any]:
    """Through the API server. Raises SpecError."""
    from urllib.parse import quote

    from dualpath_operator.kube import KubeError

    async with clusters_of(namespace, context) as clusters:
        await clusters.cluster(cluster)
        try:
            return await clusters.ask(cluster, f"/debug/requests/{quote(request, safe='')}")
        except KubeError as error:
            if error.status != 404:
                raise
            raise SpecError(
                f"the gateway of {cluster} does not know the request {request}",
                cause="the id is wrong, or the request is so old that its record is gone",
                remedy="use the id of a recent response",
            ) from None


def _print(found: Mapping[str, Any]) -> None:
    """The summary, then a table of attempts with their reasons, then the history."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    figures = "{prompt_tokens} prompt tokens ({cached_tokens} from the cache), {generated_tokens} generated"
    console.print(f"{found['id']}: {found['outcome']}; {figures.format(**found)}")
    for attempt in found["attempts"]:
        table = Table(
            "what", "value", title=f"attempt {attempt['attempt']}", title_justify="left", show_header=False
        )
        for key, value in attempt.items():
            if key not in {"job", "attempt", "reasons"}:
                table.add_row(_words(key), _value(key, value))
        for what, reason in attempt.get("reasons", {}).items():
            table.add_row(f"why this {_words(what)}", str(reason))
        console.print(table)
    history = Table("after", "state", "detail", title="history", title_justify="left")
    for step in found["history"]:
        detail = {k: v for k, v in step.items() if k not in _TOLD_ELSEWHERE}
        told = ", ".join(f"{_words(key)}: {_value(key, value)}" for key, value in detail.items())
        history.add_row(f"{step['after_s']:.3f} s", str(step["state"]), told)
    console.print(history)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _value(key: str, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("bytes"):
            return f"{value / 1e6:.2f} MB"
        if key.endswith(("seconds", "_s")):
            return f"{value:.3f} s"
    return str(value)
