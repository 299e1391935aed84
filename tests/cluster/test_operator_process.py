"""The operator as a process on the control plane of the tests: it starts, leads, hands over and stops."""

from __future__ import annotations

import pytest
from controlplane import ControlPlane
from kube_api import Kube
from kube_objects import StartOperator
from waiting import until


@pytest.mark.usefixtures("definitions")
def test_two_operators_share_one_lease_and_the_second_takes_over(
    control_plane: ControlPlane, kube: Kube, namespace: str, start_operator: StartOperator
) -> None:
    settings = {"watchNamespaces": [namespace], "leaderElection": {"namespace": namespace}}
    first = start_operator(control_plane.admin, settings, name="first")

    def holder() -> str:
        lease = kube.find("leases.coordination.k8s.io", "dualpath-operator", namespace)
        return str(lease["spec"]["holderIdentity"]) if lease else ""

    leads = until(holder, 60)
    second = start_operator(control_plane.admin, settings, name="second")
    assert holder() == leads
    until(lambda: "\ndualpath_operator_leader 1.0\n" in first.metrics(), 30)
    first.kill()
    until(lambda: holder() not in ("", leads), 60)
    until(lambda: "\ndualpath_operator_leader 1.0\n" in second.metrics(), 30)
    assert second.stop() == 0
