"""Recorded parts of /sys, as files below a folder; and how a test makes their counters go on."""

from __future__ import annotations

import json
from pathlib import Path

from dualpath_api.cluster import NicRule
from dualpath_api.wire import Nic
from dualpath_worker.nics import NicSampler

HERE = Path(__file__).parent


class Recorded:
    """One recorded machine."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = folder / name
        self.clock = 100.0
        content = json.loads((HERE / f"sysfs-{name}.json").read_text())
        self.ethtool: dict[str, dict[str, int]] = content["ethtool"]
        for path, text in content["files"].items():
            self.write(path, text)

    def write(self, path: str, text: object) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def sampler(self, *rules: NicRule) -> NicSampler:
        """Has sampled once; after that `clock` is to be moved and `sample` called."""
        return NicSampler(
            rules,
            sysfs=self.root,
            period_s=None,
            clock=lambda: self.clock,
            statistics=lambda name: self.ethtool.get(name, {}),
        )

    def after(self, sampler: NicSampler, seconds: float = 1.0) -> dict[str, Nic]:
        """The next sample, by name."""
        self.clock += seconds
        return {nic.name: nic for nic in sampler.sample()}


def storage(match: str, link_bps: int | None = None) -> NicRule:
    return NicRule(role="storage", match=match, link_bps=link_bps)


def compute(match: str, link_bps: int | None = None) -> NicRule:
    return NicRule(role="compute", match=match, link_bps=link_bps)
