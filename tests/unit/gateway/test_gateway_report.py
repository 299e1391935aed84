"""The control report: what it sums up, and how long it remembers."""

from __future__ import annotations

import json

from scripted_engine import LAYOUT, register, replaced

from dualpath_api import wire
from dualpath_api.cluster import PathMode
from dualpath_api.report import ControlReport, decode_report, encode_report
from dualpath_gateway.report import make_report
from dualpath_gateway.scheduler.core import Scheduler
from dualpath_gateway.scheduler.model import Patience
from dualpath_policy.model import Tuning


def nic(name: str, rx: float, role: str = "storage", **more) -> wire.Nic:
    fields = {"rx_bytes": 0, "tx_bytes": 0, "tx_bytes_per_s": 0.0, "link_bytes_per_s": 100.0} | more
    return wire.Nic(name=name, role=role, rx_bytes_per_s=rx, **fields)


def load(**figures) -> wire.Report:
    return wire.Report(**{"seen": 0, "seq_e": 0, "tok_e": 0, "read_q": 0, **figures})


def scheduler(*engines: wire.Register, at: float = 0.0) -> Scheduler:
    made = Scheduler(Patience(), Tuning())
    for engine in engines:
        made.engine_up(engine, at)
    return made


def test_nics_of_a_node_count_once_and_quantiles_are_over_nodes():
    engines = [register(f"decode-{n}-0", wire.Role.DECODE, node=f"n{n // 2}") for n in range(8)]
    made = scheduler(*engines)
    for n, engine in enumerate(engines):
        busy = (nic("eth0", 10.0 * (n // 2 + 1)), nic("eth1", 50.0, "compute"))
        made.message(engine.engine, load(nics=busy), 1.0)
    side = make_report(made.world, 1.0).sides.decode
    assert (side.storage_link_bytes_per_s, side.storage_busy_bytes_per_s) == (400, 100)
    assert (side.nics.storage.p50_permille, side.nics.storage.p95_permille) == (200, 400)
    assert (side.nics.compute.p95_permille, side.utilisation.storage) == (500, 0.25)


def test_devices_of_the_same_name_in_two_networks_are_two():
    engines = [register(f"prefill-{n}-0", wire.Role.PREFILL, node="n") for n in range(2)]
    made = scheduler(*engines)
    for n, engine in enumerate(engines):
        made.message(engine.engine, load(nics=(nic("eth0", 10.0, scope=f"net:{n}"),)), 0.0)
    assert make_report(made.world, 0.0).sides.prefill.storage_link_bytes_per_s == 200


def test_rates_are_over_the_last_half_minute():
    made = scheduler(register("prefill-0-0", wire.Role.PREFILL))
    for second in range(100):
        total = 10 * min(second, 50)  # reading stops after 50 seconds
        made.message("prefill-0-0", load(read_bytes_total=total, busy_s=second / 4), float(second))
        side = make_report(made.world, float(second)).sides.prefill
        if 0 < second <= 50:
            assert (side.read_bytes_per_s, side.busy_permille) == (10, 250)
    assert (side.read_bytes_per_s, side.busy_permille) == (0, 250)


def test_silence_is_told_by_its_age():
    made = scheduler(register("prefill-0-0", wire.Role.PREFILL), register("prefill-1-0", wire.Role.PREFILL))
    made.message("prefill-0-0", load(), 19.0)
    report = make_report(made.world, 20.0)
    side = report.sides.prefill
    assert (side.engines, side.reporting_engines, side.sample_age_s) == (2, 1, 20)
    assert [engine.report_age_s for engine in report.engines] == [1, None]
    assert report.sides.decode.sample_age_s is None


def test_memory_is_told_in_permille_and_reads_in_seconds():
    made = scheduler(register("decode-0-0", wire.Role.DECODE, slots=64, pages=40))
    made.message("decode-0-0", load(free_slots=48, free_pages=10, read_q=640, nics=(nic("a", 0.0),)), 0.0)
    side = make_report(made.world, 0.0).sides.decode
    assert (side.buffer_permille, side.kv_cache_permille) == (250, 750)
    assert side.read_queue_s == 10 * LAYOUT.full_block_bytes / 100


def test_revisions_and_pods_are_told():
    made = scheduler(
        register("a-0", wire.Role.PREFILL, revision="1", pod="a", pod_uid="u", node="n"),
        register("b-0", wire.Role.DECODE, revision="1"),
        register("c-0", wire.Role.DECODE, revision="2", layout=replaced(LAYOUT, fingerprint="01")),
    )
    report = decode_report(encode_report(make_report(made.world, 0.0)))
    told = [(one.revision, one.prefill, one.decode, one.complete) for one in report.revisions]
    assert told == [("1", 1, 1, True), ("2", 0, 1, False)]
    first = report.engines[0]
    assert (first.id, first.pod, first.pod_uid, first.node, first.revision) == ("a-0", "a", "u", "n", "1")


def test_reports_of_other_versions_are_understood():
    assert decode_report(b"{}") == ControlReport()
    newer = {"engines": [{"id": "a", "colour": "blue"}], "sides": {"other": {}}}
    assert decode_report(json.dumps(newer).encode()).engines[0].id == "a"


def test_the_longest_waiting_request_is_told():
    made = scheduler(register("prefill-0-0", wire.Role.PREFILL), register("decode-0-0", wire.Role.DECODE))
    for at in (1.0, 3.0):
        made.submit(f"r{at}", (1,) * 130, {}, wire.Sampling(max_tokens=1), 1, at)
    queue = make_report(made.world, 4.0).queue
    assert (queue.waiting, queue.running, queue.oldest_s) == (2, 0, 3)


def test_utilisation_is_the_mean_over_what_the_nic_has_shown_to_carry():
    made = scheduler(register("decode-0-0", wire.Role.DECODE))
    shaped = nic("eth0", 90.0, link_bytes_per_s=1000.0, capacity_bytes_per_s=100.0, rx_mean_bytes_per_s=50.0)
    silent = nic("mlx5_2", 0.0, "compute", counted=False, congestion={"discards": 1})
    marked = nic("mlx5_0", 5.0, "compute", congestion={"discards": 2, "ecn_marked": 3})
    made.message("decode-0-0", load(nics=(shaped, silent, marked)), 1.0)
    report = decode_report(encode_report(make_report(made.world, 1.0)))
    side = report.sides.decode
    assert (side.storage_link_bytes_per_s, side.storage_busy_bytes_per_s) == (100, 50)
    assert (side.nics.storage.p95_permille, side.nics.compute.p95_permille) == (500, 50)
    assert (side.unknown_nics, side.congestion) == (1, {"discards": 3, "ecn_marked": 3})
    told = {each.name: each for each in report.engines[0].nics}
    assert (told["eth0"].utilisation, told["eth0"].capacity_bytes_per_s) == (0.5, 100.0)
    assert (told["mlx5_2"].utilisation, told["mlx5_2"].counted) == (None, False)


def test_what_keeps_reads_off_the_decode_side_is_told_once():
    made = scheduler()

    def told(name: str, **more) -> list[object]:
        made.take()
        made.engine_up(register(name, wire.Role.DECODE, **more), 0.0)
        return [effect.fields["cause"] for effect in made.take() if getattr(effect, "warning", False)]

    missing = {"storage_nic": wire.StorageNic.MISSING}
    unnamed = {"storage_nic": wire.StorageNic.UNNAMED}
    assert told("decode-0-0", node="a", **missing) == ["decode-0-0 has no storage NIC that spec.nics names"]
    assert told("decode-1-0", node="a", **unnamed) == []  # one node: nothing passes a NIC
    assert told("decode-2-0", node="b", **unnamed) == [
        "spec.nics names no storage NIC, and a request's two engines are on two nodes"
    ]
    assert told("decode-3-0", node="c", **unnamed) == []


def test_nics_are_told_of_only_where_the_policy_in_use_needs_them():
    made = scheduler()

    def causes() -> list[object]:
        return [effect.fields["cause"] for effect in made.take() if getattr(effect, "warning", False)]

    made.tune(Tuning(path_policy=PathMode.DECODE_ONLY), 0.0)
    made.engine_up(register("decode-0-0", wire.Role.DECODE, storage_nic=wire.StorageNic.MISSING), 0.0)
    assert causes() == []
    for policy in (PathMode.SPLIT, PathMode.AUTO):
        made.tune(Tuning(path_policy=policy), 0.0)
    assert causes() == ["decode-0-0 has no storage NIC that spec.nics names"]


def test_what_was_told_of_engines_that_are_gone_is_forgotten():
    made = scheduler()
    for n in range(3):
        made.engine_up(register(f"d-{n}", wire.Role.DECODE, storage_nic=wire.StorageNic.MISSING), 0.0)
        made.engine_lost(f"d-{n}", "it ended", 1.0)
    assert made.world.warned == set()
