"""Samples the NICs of a node each second and prints each sample as a line of JSON. Arguments: "NIC[=BIT/S]" ..."""

from __future__ import annotations

import json
import sys
import time

import msgspec

from dualpath_api.cluster import NicRule
from dualpath_worker.metrics import Metrics
from dualpath_worker.nics import NicSampler

rules = []
for word in sys.argv[1:]:
    name, _, rate = word.partition("=")
    role = "storage" if name.startswith("s") else "compute"
    rules.append(NicRule(role=role, match=name, link_bps=int(rate) if rate else None))
sampler, metrics = NicSampler(rules, period_s=None), Metrics()
sampler.watch(lambda: True)  # as if reads were always waiting
due = time.monotonic()
while True:
    due += 1.0
    time.sleep(max(0.0, due - time.monotonic()))
    sample = sampler.sample()
    metrics.nics(sample)
    told = {
        nic.name: msgspec.to_builtins(nic)
        | {
            "utilisation": metrics.registry.get_sample_value(
                "dualpath_nic_utilization_ratio", {"nic": nic.name, "role": nic.role}
            )
        }
        for nic in sample
    }
    print(json.dumps(told), flush=True)
