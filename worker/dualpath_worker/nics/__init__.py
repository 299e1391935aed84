"""What the network devices of this machine do, as the kernel counts it.

Devices and their roles come from the rules of the spec and never from guessing: the first rule whose pattern
matches a device's name gives its role, other devices are not counted. All traffic of a device counts, also
what is not ours. `devices` finds them, `counters` joins what their files say, `rates` makes rates and the
measured capacity of it, `congestion` and `ethtool` count what a crowded network does, `sampler` reads it all
each second.
"""

from dualpath_worker.nics.devices import Device, discover, standing
from dualpath_worker.nics.sampler import NicSampler

__all__ = ["Device", "NicSampler", "discover", "standing"]
