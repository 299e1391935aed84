"""Rollouts pass by pass, as a reader would play them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unit.operator.rollout_world import D, P, fleet, wish

from dualpath_operator.rollout import plan
from dualpath_operator.rollout_model import (
    Create,
    Delete,
    Drain,
    Outcome,
    Plan,
    Replica,
    Resume,
    State,
    Strategy,
    state_of,
)


def told(answer: Plan) -> list[str]:
    """The steps in short: +role revision index, ~ drained, - deleted, ! resumed."""
    signs = {Drain: "~", Delete: "-", Resume: "!"}
    return [
        f"+{step.role[0]}-{step.revision}-{step.index}"
        if isinstance(step, Create)
        else f"{signs[type(step)]}{step.id}"
        for step in answer.steps
    ]


def test_a_new_cluster_is_made_at_once():
    answer = plan([], wish("a", 1, 2))
    assert told(answer) == ["+p-a-0", "+d-a-0", "+d-a-1"]
    assert answer.outcome is Outcome.SCALING


def test_nothing_is_done_when_all_is_as_wanted():
    answer = plan(fleet("a", 1, 2), wish("a", 1, 2))
    assert answer.steps == ()
    assert answer.complete


def test_the_roles_advance_together_and_an_old_pair_goes_when_the_new_pair_is_ready():
    begun = plan(fleet("a", 2, 2), wish("b", 2, 2))
    assert told(begun) == ["+p-b-0", "+d-b-0"]
    half = fleet("a", 2, 2) + fleet("b", 1, 0) + fleet("b", 0, 1, State.PENDING)
    assert told(plan(half, wish("b", 2, 2))) == []
    assert told(plan(fleet("a", 2, 2) + fleet("b", 1, 1), wish("b", 2, 2))) == ["~p-a-1", "~d-a-1"]


def test_one_prefill_replica_stays_while_its_decode_replicas_serve():
    found = fleet("a", 1, 4) + fleet("b", 1, 1)
    assert told(plan(found, wish("b", 1, 4))) == ["~d-a-3"]


def test_going_back_in_the_middle_only_removes_what_is_new():
    found = fleet("a", 2, 2) + fleet("b", 1, 0) + fleet("b", 0, 1, State.PENDING)
    answer = plan(found, wish("a", 2, 2))
    assert told(answer) == ["-d-b-0", "~p-b-0"]
    draining = fleet("a", 1, 1) + fleet("b", 1, 1)
    draining += [replace(r, id=f"{r.role[0]}-a-1", index=1) for r in fleet("a", 1, 1, State.DRAINING)]
    assert told(plan(draining, wish("a", 2, 2)))[:2] == ["!p-a-1", "!d-a-1"]


def test_of_two_old_revisions_the_smaller_one_goes_first():
    found = fleet("a", 3, 3) + fleet("b", 1, 1) + fleet("c", 1, 1)
    assert told(plan(found, wish("c", 4, 4))) == ["~p-b-0", "~d-b-0"]


def test_a_replica_without_a_partner_goes_before_one_with():
    found = [*fleet("a", 2, 3), *fleet("b", 1, 0), *fleet("c", 1, 1)]
    assert told(plan(found, wish("c", 3, 3))) == ["~p-b-0", "~d-a-2"]


def test_a_restart_of_the_scheduler_makes_all_unready_and_drains_none():
    found = fleet("a", 3, 3, State.UNREADY) + fleet("b", 1, 1, State.UNREADY)
    assert told(plan(found, wish("b", 3, 3))) == []


def test_without_surge_an_old_pair_makes_room_first():
    wanted = wish("b", 2, 2, surge=(0, 0), unavailable=(1, 1))
    assert told(plan(fleet("a", 2, 2), wanted)) == ["~p-a-1", "~d-a-1"]


def test_without_surge_and_unavailability_one_replica_may_be_missing():
    wanted = wish("b", 1, 1, surge=(0, 0), unavailable=(0, 0))
    assert told(plan(fleet("a", 1, 1), wanted)) == ["~p-a-0", "~d-a-0"]


def test_a_rollout_that_lacks_gpus_says_how_many_and_drains_nothing():
    answer = plan(fleet("a", 2, 2), wish("b", 2, 2, gpus=(8, 8), gpu_budget=40))
    assert answer.steps == ()
    assert answer.outcome is Outcome.NO_GPUS
    assert answer.blocked == "the rollout needs 16 GPUs, 8 of the budget of 40 free"


def test_where_surge_lacks_gpus_unavailability_gives_them():
    wanted = wish("b", 2, 2, gpus=(8, 8), unavailable=(1, 1), gpu_budget=32)
    assert told(plan(fleet("a", 2, 2), wanted)) == ["~p-a-1", "~d-a-1"]


def test_half_a_step_is_not_begun():
    one_gone = [r for r in fleet("a", 2, 2) if r.id != "d-a-1"]
    answer = plan(one_gone, wish("b", 2, 2, gpus=(8, 8), gpu_budget=32))
    assert answer.steps == ()
    assert answer.blocked


def test_what_is_terminating_holds_its_gpus_and_its_name_and_what_is_lost_only_its_name():
    going = replace(fleet("a", 0, 1)[0], state=State.TERMINATING)
    wanted = wish("a", 1, 1, gpus=(1, 1), gpu_budget=2)
    assert told(plan([*fleet("a", 1, 0), going], wanted)) == []
    assert told(plan([*fleet("a", 1, 0), replace(going, state=State.LOST)], wanted)) == ["+d-a-1"]


def test_a_replica_of_another_size_counts_what_it_holds():
    small = [replace(r, gpus=4) for r in fleet("a", 1, 1)]
    wanted = wish("b", 1, 1, gpus=(8, 8), gpu_budget=24)
    assert told(plan(small, wanted)) == ["+p-b-0", "+d-b-0"]
    assert plan(small, replace(wanted, gpu_budget=23)).blocked


def test_more_are_wanted_in_the_middle_of_a_rollout_and_are_made_new():
    found = fleet("a", 1, 1) + fleet("b", 1, 1)
    answer = plan(found, wish("b", 3, 3))
    assert told(answer) == ["+p-b-1", "+d-b-1", "+p-b-2", "+d-b-2"]


def test_fewer_are_wanted_and_what_is_pending_goes_first():
    found = [*fleet("a", 2, 2), Replica(id="new", role=P, revision="a", index=7, state=State.PENDING)]
    found.append(Replica(id="weak", role=D, revision="a", index=0, state=State.UNREADY))
    assert told(plan(found, wish("a", 2, 2))) == ["-new", "~weak"]


def test_scaling_to_zero_drains_all_and_is_complete_when_all_are_gone():
    assert told(plan(fleet("a", 1, 1), wish("a", 0, 0))) == ["~p-a-0", "~d-a-0"]
    assert plan([], wish("a", 0, 0)).complete


def test_what_drains_is_called_back_when_it_is_wanted_again():
    assert told(plan(fleet("a", 1, 1, State.DRAINING), wish("a", 1, 1))) == ["!p-a-0", "!d-a-0"]


def test_a_paused_rollout_stays_where_it_is_and_goes_on_later():
    found = fleet("a", 1, 1) + fleet("b", 1, 1)
    answer = plan(found, wish("b", 2, 2, paused=True))
    assert (answer.steps, answer.outcome) == ((), Outcome.PAUSED)
    assert told(plan(found, wish("b", 2, 2))) == ["+p-b-1", "+d-b-1"]


def test_recreate_takes_all_old_away_before_anything_new_comes():
    wanted = wish("b", 1, 1, strategy=Strategy.RECREATE)
    assert told(plan(fleet("a", 1, 1), wanted)) == ["~p-a-0", "~d-a-0"]
    assert told(plan(fleet("a", 1, 1, State.TERMINATING), wanted)) == []
    assert told(plan([], wanted)) == ["+p-b-0", "+d-b-0"]


def test_a_broken_replica_is_replaced_under_another_name():
    broken = replace(fleet("a", 1, 0)[0], state=State.BROKEN)
    assert told(plan([broken, *fleet("a", 0, 1)], wish("a", 1, 1))) == ["-p-a-0", "+p-a-1"]


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({"ready": True, "admitted_before": True}, State.READY),
        ({"ready": False, "admitted_before": False, "draining": True}, State.PENDING),
        ({"ready": True, "admitted_before": True, "draining": True}, State.DRAINING),
        ({"ready": False, "admitted_before": True, "draining": True, "drained": True}, State.DRAINED),
        ({"ready": False, "admitted_before": True}, State.UNREADY),
        ({"ready": False, "admitted_before": True, "broken": True, "drained": True}, State.BROKEN),
        ({"ready": True, "admitted_before": True, "terminating": True}, State.TERMINATING),
        ({"ready": False, "admitted_before": True, "terminating": True, "node_gone": True}, State.LOST),
    ],
)
def test_the_state_furthest_on_the_way_out_counts(seen: dict[str, bool], state: State):
    assert state_of(**seen) is state
