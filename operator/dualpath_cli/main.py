"""The command group. Modules of commands import only click at the top, so `dualpath --help` is instant."""

from __future__ import annotations

from typing import Any

import click

from dualpath_api.errors import DualPathError
from dualpath_cli.crds import crds
from dualpath_cli.drain import drain
from dualpath_cli.emulate import emulate
from dualpath_cli.explain import explain
from dualpath_cli.fabric import fabric
from dualpath_cli.fetch import fetch
from dualpath_cli.render import render
from dualpath_cli.status import status
from dualpath_cli.storage import storage
from dualpath_cli.top import top
from dualpath_cli.up import up


class Commands(click.Group):
    """Turns errors for people into one message on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; anything but a DualPathError is a bug of ours and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except DualPathError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dualpath", prog_name="dualpath")
def main() -> None:
    """Serve agents' conversations with KV-cache read through prefill and decode engines at once.

    Example:  dualpath up examples/local.yaml --model ~/models/Qwen3-0.6B
    """


main.add_command(up)
main.add_command(emulate)
main.add_command(explain)
main.add_command(render)
main.add_command(crds)
main.add_command(fetch)
main.add_command(status)
main.add_command(top)
main.add_command(drain)
main.add_command(storage)
main.add_command(fabric)
