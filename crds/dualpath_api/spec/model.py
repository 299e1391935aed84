"""spec.model and spec.kv: what is served, and how its KV-cache is cut into blocks."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from dualpath_api.spec.base import NAME_PATTERN, Rule, Section, unchanged

BLOCK_TOKENS = (16, 32, 64, 128, 256)
"""Allowed sizes of a block: powers of two, so that a block is a whole number of kernel tiles."""

_STEP = "([^/.][^/]*|[.][^/.][^/]*|[.][.][^/]+)"  # of a path, but neither "." nor ".."
_URI = f"^(file://(/+{_STEP})+/*|hf://{_STEP}/{_STEP}|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/+{_STEP})*/*)$"


class SecretRef(Section):
    """A Secret in the cluster's namespace."""

    name: str = Field(max_length=253, pattern=NAME_PATTERN, description="Name of the Secret.")
    key: str = Field("token", min_length=1, max_length=253, description="Key within the Secret.")


class ModelCache(Section):
    """Where the Pods keep a hub model between starts; without one each Pod fetches it again."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.claimName) != has(self.hostPath)",
            message="the model cache is one of claimName and hostPath; keep one of them",
            holds=lambda cache: (cache.claim_name is None) != (cache.host_path is None),
        ),
    )

    claim_name: str | None = Field(
        None, max_length=253, pattern=NAME_PATTERN, description="PersistentVolumeClaim, ReadWriteMany."
    )
    host_path: str | None = Field(
        None,
        max_length=512,
        pattern=r"^/.+$",
        description="Directory of the node; needs a namespace whose Pod Security level allows hostPath.",
    )


class ModelSpec(Section):
    """Which model is served."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.uri.matches('{_URI}')",
            message=(
                "model.uri is none of file:///absolute/path, hf://org/name and pvc://claim/path; "
                "write one of them, without '.' or '..'"
            ),
            holds=lambda model: re.fullmatch(_URI, model.uri, flags=re.ASCII) is not None,
        ),
        Rule(
            cel="!has(self.revision) || self.uri.startsWith('hf://')",
            message="revision is for hf:// models, a directory has none; remove revision",
            holds=lambda model: model.revision is None or model.uri.startswith("hf://"),
        ),
        Rule(
            cel="!has(self.secretRef) || self.uri.startsWith('hf://')",
            message="secretRef is the hub's token, only hf:// models need one; remove secretRef",
            holds=lambda model: model.secret_ref is None or model.uri.startswith("hf://"),
        ),
        Rule(
            cel="!has(self.cache) || self.uri.startsWith('hf://')",
            message="cache keeps hf:// models, other models need none; remove cache",
            holds=lambda model: model.cache is None or model.uri.startswith("hf://"),
        ),
        unchanged("uri", "model.uri"),
        unchanged("dtype", "model.dtype"),
    )

    uri: str = Field(
        max_length=512,
        description=(
            "file:///path of a Hugging Face checkpoint directory (in Kubernetes: in the image), "
            "hf://org/name of a hub model, or in Kubernetes pvc://claim/path of a directory in a volume."
        ),
    )
    revision: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of a hub model; only with hf://.",
    )
    served_name: str = Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="The model name that clients send.",
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Data type of weights and KV.")
    secret_ref: SecretRef | None = Field(
        None, description="Kubernetes: Secret with the hub's access token, for hf:// models."
    )
    cache: ModelCache | None = Field(None, description="Kubernetes: where Pods keep a hub model.")


class KvSpec(Section):
    """The KV-cache layout. Part of every block key."""

    RULES: ClassVar[tuple[Rule, ...]] = (unchanged("blockTokens", "kv.blockTokens"),)

    block_tokens: Literal[16, 32, 64, 128, 256] = Field(
        64, description=f"Tokens of a block: one of {', '.join(map(str, BLOCK_TOKENS))}."
    )
