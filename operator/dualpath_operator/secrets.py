"""The control token of a cluster: made once, read by name, never listed, never logged."""

from __future__ import annotations

import base64
import secrets

from dualpath_operator import names
from dualpath_operator.desired import secret
from dualpath_operator.kinds import SECRET
from dualpath_operator.kube import Api, KubeError
from dualpath_operator.memory import Memory
from dualpath_operator.model import Cluster, Object
from dualpath_operator.views import controller_of


class Secrets:
    """Reads and makes Secrets."""

    def __init__(self, api: Api, look_again_s: float) -> None:
        self._api = api
        self._look_again_s = look_again_s

    async def ensure(self, cluster: Cluster, memory: Memory, now: float) -> bool:
        """Have the token in memory; False when the Secret's name is taken by somebody else's.

        Nothing tells of a Secret that is gone, so it is looked at again now and then. It comes back with the
        token that the gateway and the engines have.
        """
        if memory.token and now - memory.token_at < self._look_again_s:
            return True
        memory.token_at = now
        name = names.control_secret(cluster.name)
        found = await self._api.get(SECRET, cluster.namespace, name)
        if found is None:
            token = memory.token or secrets.token_urlsafe(32)
            try:
                await self._api.create(secret(cluster, token))
            except KubeError as error:
                if not error.taken:
                    raise
                found = await self._api.get(SECRET, cluster.namespace, name)
            else:
                memory.token = token
                return True
        return _take(found, cluster, memory)

    async def recall(self, cluster: Cluster, memory: Memory) -> bool:
        """Have the token in memory where there is one: a cluster that is deleted gets no new one."""
        if memory.token:
            return True
        name = names.control_secret(cluster.name)
        return _take(await self._api.get(SECRET, cluster.namespace, name), cluster, memory)


def _take(found: Object | None, cluster: Cluster, memory: Memory) -> bool:
    """Read the token of a Secret that is the cluster's."""
    if controller_of((found or {}).get("metadata", {})) != cluster.uid:
        return False
    try:
        memory.token = (
            base64.b64decode((found or {}).get("data", {}).get("token", "")).decode("ascii").strip()
        )
        if not memory.token.isprintable():
            memory.token = ""
    except ValueError:  # somebody wrote something else there
        memory.token = ""
    return bool(memory.token)
