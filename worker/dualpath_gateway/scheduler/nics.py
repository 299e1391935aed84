"""Says once what keeps reads off the decode side: engines without a storage NIC of their own."""

from __future__ import annotations

from dualpath_api.cluster import PathMode
from dualpath_api.wire import StorageNic
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.world import World

REMEDY = "let spec.nics name the storage NICs of all nodes"


def tell_of_nics(world: World, engine: Engine) -> None:
    """Warn when an engine comes whose reads the path policy cannot use; once for each cause."""
    register = engine.register
    if register.storage_nic is StorageNic.MISSING:
        _warn(world, f"{engine.name} has no storage NIC that spec.nics names; its requests are PrefillOnly")
    elif register.storage_nic is StorageNic.UNNAMED and world.tuning.path_policy is PathMode.AUTO:
        nodes = {other.register.node for other in world.engines}
        if len(nodes) > 1:
            _warn(world, "spec.nics names no storage NIC; requests between two nodes are PrefillOnly")


def _warn(world: World, what: str) -> None:
    if what not in world.warned:
        world.warned.add(what)
        world.warn("reads stay on the prefill side", cause=what, remedy=REMEDY)
