"""`dualpath fetch`: a model as a local directory. Init containers call it, also again and at the same time.

A directory that is complete says so in a file of its own, written last: then nothing is fetched, and no
network is needed. Another model's directory is never mixed with ours.
"""

from __future__ import annotations

from pathlib import Path

import click

MARKER = ".dualpath-model.json"


@click.command()
@click.argument("uri")
@click.option(
    "--into",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Directory of the model; made if missing.",
)
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub model; default: main.")
@click.option("--no-weights", is_flag=True, help="Leave out the weights: a gateway needs none.")
def fetch(uri: str, into: Path, revision: str | None, no_weights: bool) -> None:
    """Make a local directory of the model URI: hf://org/name of a hub model, or file:///path to copy.

    Does nothing when DIR holds that model already. The hub's access token is read from HF_TOKEN.

    Example:  dualpath fetch hf://Qwen/Qwen3-0.6B --into /models/qwen3
    """
    from dualpath_api.errors import SpecError
    from dualpath_cli import hub, readyfile

    wanted: dict[str, object] = {"uri": uri, "revision": revision, "weights": not no_weights}
    try:
        if _there(into, wanted):
            click.echo(f"{into} holds {uri} already")
            return
        into.mkdir(parents=True, exist_ok=True)
        patterns = hub.TEXT if no_weights else (*hub.TEXT, *hub.WEIGHTS)
        if uri.startswith("hf://"):
            hub.download(uri, revision, patterns, into=into)
        else:
            _copied(uri, into, patterns)
        if not _there(into, wanted):  # another process may have fetched more meanwhile
            readyfile.write(into / MARKER, wanted)
    except OSError as error:
        raise SpecError(
            f"{into} cannot be filled",
            cause=error.strerror or str(error),
            remedy="name a directory that this user may write to, on a disk with room for the model",
        ) from None
    click.echo(f"{into} holds {uri}")


def _there(into: Path, wanted: dict[str, object]) -> bool:
    """Whether all is there. Raises SpecError when the directory is another model's."""
    import json

    from dualpath_api.errors import SpecError

    try:
        found = json.loads((into / MARKER).read_text())
    except (FileNotFoundError, ValueError):
        return False
    if (found.get("uri"), found.get("revision")) != (wanted["uri"], wanted["revision"]):
        raise SpecError(
            f"--into {into}: it holds another model",
            cause=f"it has {found.get('uri')} at revision {found.get('revision') or 'main'}",
            remedy="name another directory, or empty this one",
        )
    return bool(found.get("weights")) or not wanted["weights"]


def _copied(uri: str, into: Path, patterns: tuple[str, ...]) -> None:
    """Copy a checkpoint's files, each in one step."""
    import os
    import shutil

    from dualpath_api.errors import SpecError

    source = Path(uri.removeprefix("file://"))
    if not uri.startswith("file:///") or not (source / "config.json").is_file():
        is_file = uri.startswith("file:///")
        raise SpecError(
            f"{uri} cannot be fetched",
            cause="there is no config.json in it" if is_file else "it is no URI of a model",
            remedy="give file:///path of a Hugging Face checkpoint directory, or hf://org/name",
        )
    for path in sorted(path for pattern in patterns for path in source.glob(pattern)):
        scratch = into / f".{path.name}.{os.getpid()}.part"
        shutil.copyfile(path, scratch)
        scratch.replace(into / path.name)
