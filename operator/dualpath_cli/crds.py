"""`dualpath crds`: the definitions of our kinds."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write one file a kind there, instead of printing.",
)
def crds(output: Path | None) -> None:
    """Print the CustomResourceDefinitions of DualPathCluster and DualPathEngineGroup.

    Example:  dualpath crds | kubectl apply --server-side -f -
    """
    from dualpath_api.crd import crd_files
    from dualpath_api.errors import SpecError

    files = crd_files()
    if output is None:
        click.echo("---\n".join(files.values()), nl=False)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (output / name).write_text(text)
            click.echo(str(output / name))
    except OSError as error:
        raise SpecError(
            f"--output {output}: cannot be written",
            cause=error.strerror or str(error),
            remedy="name a directory that you may write to",
        ) from None
