"""Hub models: the one place that talks to the hub's client, whose many errors become one message."""

from __future__ import annotations

from pathlib import Path

from dualpath_api.errors import SpecError, UnsupportedError

TEXT = ("*.json", "*.jinja", "*.txt", "*.model")
"""Configuration and tokenizer: what a gateway needs of a checkpoint."""

WEIGHTS = ("*.safetensors",)


def download(
    uri: str, revision: str | None, patterns: tuple[str, ...], *, into: Path | None = None, instead: str = ""
) -> Path:
    """The directory of a hf:// model: `into`, or one in the hub's cache. What is there is not fetched again.

    `instead` ends the remedies: what else may be done. Raises SpecError; UnsupportedError without the client.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UnsupportedError(
            f"{uri} cannot be fetched",
            cause="the package huggingface_hub is not installed",
            remedy=f"pip install dualpath[worker]{instead}",
        ) from None
    name = uri.removeprefix("hf://")
    try:
        return Path(snapshot_download(name, revision=revision, local_dir=into, allow_patterns=list(patterns)))
    except Exception as error:  # the hub client raises many kinds, all of which mean: not fetched
        raise SpecError(
            f"{uri} cannot be fetched",
            cause=" ".join(str(error).split())[:300] or type(error).__name__,
            remedy=f"check the name, the revision, the network and HF_TOKEN{instead}",
        ) from error
