"""The file of an emulation: what it means, and that every mistake in it is one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.errors import SpecError, UnsupportedError
from dualpath_cli.emulation.rates import LOWEST, UNLIMITED, format_rate, parse_rate
from dualpath_cli.emulation.store import storage_spec
from dualpath_cli.emulation.system import read_emulation
from dualpath_cli.emulation.topology import DualPathEmulation, load_emulation
from dualpath_cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "emulated.yaml"


def written(folder: Path, **spec: object) -> Path:
    """A file with this spec."""
    file = folder / "emulated.yaml"
    head = {"apiVersion": "dualpath.io/v1alpha1", "kind": "DualPathEmulation", "metadata": {"name": "e"}}
    file.write_text(yaml.safe_dump({**head, "spec": spec}))
    return file


def rates(emulation: DualPathEmulation) -> dict[str, int | None]:
    """The rate of every NIC."""
    return {f"{node.name}.{nic.name}": nic.bits_per_s for node in emulation.layout.nodes for nic in node.nics}


def test_the_example_is_one_of_each():
    emulation = load_emulation(EXAMPLE)
    assert [node.name for node in emulation.layout.nodes] == ["g0", "p0", "d0", "s0"]
    assert rates(emulation) == {
        "g0.mnic0": None,
        "p0.snic0": 200_000_000,
        "p0.cnic0": 1_600_000_000,
        "p0.mnic0": None,
        "d0.snic0": 200_000_000,
        "d0.cnic0": 1_600_000_000,
        "d0.mnic0": None,
        "s0.snic0": UNLIMITED,
        "s0.mnic0": None,
    }


@pytest.mark.parametrize("file", EXAMPLE.parent.glob("emulated*.yaml"), ids=lambda file: file.stem)
def test_every_example_can_be_laid_out(file):
    assert len(load_emulation(file).layout.addresses) >= 5


def test_a_node_may_have_rates_of_its_own(tmp_path):
    overrides = {"p1": {"snic": "50mbit"}, "s0": {"snic": "1gbit"}}
    found = rates(load_emulation(written(tmp_path, prefill={"nodes": 2}, overrides=overrides)))
    assert (found["p0.snic0"], found["p1.snic0"]) == (200_000_000, 50_000_000)
    assert found["p1.cnic0"] == 1_600_000_000
    assert found["s0.snic0"] == 1_000_000_000


def test_files_need_no_storage_nodes(tmp_path):
    emulation = load_emulation(written(tmp_path, storage={"kind": "files"}))
    assert [node.name for node in emulation.layout.nodes] == ["g0", "p0", "d0"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"prefil": {}}, "spec.prefil is not known"),
        ({"prefill": {"nodes": 0}}, "spec.prefill.nodes is 0"),
        ({"prefill": {"nodes": "2"}}, "spec.prefill.nodes is '2'"),
        ({"prefill": {"nodes": 33}}, "spec.prefill.nodes is 33"),
        ({"decode": {"snic": "fast"}}, "spec.decode.snic is 'fast'"),
        ({"decode": {"snic": "0mbit"}}, "spec.decode.snic is '0mbit'"),
        ({"decode": {"snic": True}}, "spec.decode.snic is True"),
        ({"decode": {"mnic": "5mbit"}}, "spec.decode.mnic is not known"),
        ({"storage": {"kind": "nfs"}}, "spec.storage.kind is 'nfs'"),
        ({"storage": {"kind": "files", "nodes": 2}}, "is for kind mooncake"),
        ({"storage": {"masters": 2}}, "several masters need an etcd"),
        ({"storage": {"copies": 2}}, "copies is larger than nodes"),
        ({"storage": {"size": "1Kb"}}, "spec.storage.size is '1Kb'"),
        ({"overrides": {"p1": {"snic": "5mbit"}}}, "spec.overrides.p1 is for a node that is not there"),
        ({"overrides": {"p0": {"speed": "5mbit"}}}, "spec.overrides.p0.speed is not known"),
        ({"cluster": 7}, "spec.cluster"),
    ],
)
def test_a_mistake_is_named(tmp_path, spec, message):
    with pytest.raises(SpecError) as caught:
        load_emulation(written(tmp_path, **spec))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no mapping"),
        ("- 1\n", "no mapping"),
        ("kind: DualPathCluster\n", "kind is 'DualPathCluster'"),
        (
            "apiVersion: dualpath.io/v1alpha1\nkind: DualPathEmulation\nmetadata: {name: Bad Name}\n",
            "metadata.name",
        ),
        ("a: [1\n", "not acceptable YAML"),
    ],
    ids=["empty", "list", "another kind", "bad name", "no YAML"],
)
def test_what_is_no_emulation_is_refused(tmp_path, text, message):
    file = tmp_path / "emulated.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_emulation(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "nothing to serve"),
        ({"cluster": "missing.yaml"}, "cannot be read"),
        ({"cluster": {}}, "apiVersion is missing"),
        ({"cluster": {"spec": {"modle": {}}}}, "spec.modle is not known"),
    ],
    ids=["no cluster", "no such file", "empty", "unknown key"],
)
def test_a_mistake_in_the_cluster_is_named_too(tmp_path, spec, message):
    with pytest.raises(SpecError) as caught:
        read_emulation(written(tmp_path, **spec))
    assert message in str(caught.value)


def test_the_command_ends_with_2_and_one_message(tmp_path):
    done = CliRunner().invoke(main, ["emulate", "-f", str(written(tmp_path, prefil={}))])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "spec.prefil is not known" in done.stderr


def test_the_command_without_a_file_says_what_to_give():
    done = CliRunner().invoke(main, ["emulate"])
    assert done.exit_code == 2
    assert "give a file" in done.stderr


def test_the_example_serves_on_the_nodes_that_it_says(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    emulation = read_emulation(EXAMPLE, str(tmp_path), name="another")
    assert emulation.spec.layout.name == "another"
    managed = emulation.cluster.spec.storage.managed
    assert managed is not None
    assert managed.etcd.endpoints == ("10.10.0.5:50051",)
    assert emulation.cluster.spec.decode.scaling.replicas == 1


def test_a_missing_etcd_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALPATH_ETCD", "/no/such/etcd")
    cluster = {**yaml.safe_load((EXAMPLE.parent / "local.yaml").read_text())}
    cluster["spec"]["model"]["uri"] = f"file://{tmp_path}"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedError, match="DUALPATH_ETCD"):
        read_emulation(written(tmp_path, storage={"etcd": 1}, cluster=cluster))


def test_masters_and_etcd_are_spread_over_the_storage_nodes(tmp_path):
    emulation = load_emulation(written(tmp_path, storage={"nodes": 2, "masters": 2, "etcd": 3}))
    assert storage_spec(emulation)["managed"]["etcd"]["endpoints"] == [
        "10.10.0.5:2379",
        "10.10.0.6:2379",
        "10.10.0.5:2389",
    ]


@given(st.integers(LOWEST, UNLIMITED))
def test_a_rate_that_is_printed_reads_back_as_itself(bits):
    assert parse_rate(format_rate(bits)) == bits
