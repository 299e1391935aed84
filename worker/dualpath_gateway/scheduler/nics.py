"""Says once what keeps reads off the decode side: engines without a storage NIC of their own."""

from __future__ import annotations

from dualpath_api.cluster import PathMode
from dualpath_api.wire import StorageNic
from dualpath_gateway.scheduler.engine import Engine
from dualpath_gateway.scheduler.world import World

REMEDY = "let spec.nics name the storage NICs of all nodes"


def tell_of_nics(world: World, engine: Engine) -> None:
    """Warn of an engine with which the path policy in use cannot read on both sides; once for each cause."""
    nic, policy = engine.register.storage_nic, world.tuning.path_policy
    if nic is StorageNic.MISSING and policy in {PathMode.AUTO, PathMode.SPLIT}:
        _warn(world, engine.name, f"{engine.name} has no storage NIC that spec.nics names")
    elif nic is StorageNic.UNNAMED and policy is PathMode.AUTO:
        nodes = {other.register.node for other in world.engines}
        if len(nodes) > 1:
            _warn(world, "", "spec.nics names no storage NIC, and a request's two engines are on two nodes")


def forget_nics(world: World, name: str) -> None:
    """The engine is gone; one that comes back is told of again."""
    world.warned.discard(name)


def _warn(world: World, about: str, cause: str) -> None:
    if about not in world.warned:
        world.warned.add(about)
        world.warn("reads stay on the prefill side", cause=cause, remedy=REMEDY)
