"""The control token: one secret a cluster, in a file, never in arguments or variables' values.

Whoever asks for /control/v1, /debug or /engines sends it as a bearer token. Without one these paths answer on
loopback only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dualpath_api.errors import SpecError

TOKEN_FILE = "DUALPATH_CONTROL_TOKEN_FILE"


def control_token(env: Mapping[str, str]) -> str | None:
    """The content of the file that DUALPATH_CONTROL_TOKEN_FILE names; None without the variable.

    Raises SpecError for a file that cannot be read or is empty.
    """
    path = env.get(TOKEN_FILE)
    if not path:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{TOKEN_FILE}={path} cannot be read",
            cause=getattr(error, "strerror", None) or str(error),
            remedy="name a readable file that holds the token, or unset it",
        ) from None
    if not token:
        raise SpecError(
            f"{TOKEN_FILE}={path} is empty", cause="no token in it", remedy="write a token into the file"
        )
    return token
