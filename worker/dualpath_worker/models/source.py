"""Where a checkpoint lies: a directory, file:///directory, or hf://org/name[@revision] from the hub."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from dualpath_api.errors import SpecError, UnsupportedError

_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


def resolve_model(uri: str) -> Path:
    """The local directory of a model; a hub id is downloaded, or found in the hub's own cache.

    Raises:
        SpecError: the directory does not exist, or the URI has another form.
        UnsupportedError: the hub cannot be reached or does not give the model out.
    """
    parts = urlsplit(uri)
    if parts.scheme == "hf":
        return _from_hub(parts.netloc + parts.path)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise SpecError(
            f"cannot use the model {uri!r}",
            cause=f"{parts.scheme}:// is not known here",
            remedy="write file:///absolute/directory or hf://organisation/name",
        )
    directory = Path(unquote(parts.path)).expanduser()
    if not directory.is_dir():
        raise SpecError(
            f"the model directory {directory} does not exist",
            cause=f"spec.model.uri is {uri!r}",
            remedy="check the path, or use hf://organisation/name",
        )
    return directory


def _from_hub(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise SpecError(
            f"cannot use the model hf://{name}",
            cause="a hub id has two parts",
            remedy="write hf://organisation/name or hf://organisation/name@revision",
        )
    # Imported here: an engine with a local model never needs it.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_FILES))
    except Exception as error:  # the hub client raises many kinds; all end in the same message
        raise UnsupportedError(
            f"cannot get the model {repository} from the Hugging Face hub",
            cause=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy="check the name, the network and HF_TOKEN, or point spec.model.uri at a local directory",
        ) from error
