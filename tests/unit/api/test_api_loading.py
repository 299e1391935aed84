"""YAML and --set: what is accepted, and how what is not accepted is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dualpath_api.cluster import DualPathCluster, PathMode
from dualpath_api.errors import SpecError
from dualpath_api.loading import build_cluster, load_cluster

EXAMPLE = Path(__file__).parents[3] / "examples" / "local.yaml"


@pytest.fixture
def spec(tmp_path):
    """Writes a spec file from text or bytes and gives its path."""

    def write(content):
        path = tmp_path / "spec.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def told(path, *overrides):
    with pytest.raises(SpecError) as caught:
        load_cluster(path, overrides)
    text = str(caught.value)
    assert caught.value.cause
    assert caught.value.remedy
    return text


def test_the_example_is_a_cluster():
    cluster = load_cluster(EXAMPLE)
    assert cluster.metadata.name == "local"
    assert cluster.spec.prefill.resources.dram_buffer == 256 << 20
    assert cluster.spec.path_policy.mode is PathMode.AUTO


def test_what_is_printed_is_read_back():
    cluster = load_cluster(EXAMPLE, ["spec.nics=[{role: storage, match: eth*, linkBps: 1000}]"])
    printed = cluster.model_dump(mode="json", by_alias=True)
    assert build_cluster(json.loads(json.dumps(printed)), source="printed") == cluster


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("spec.pathPolicy.mode=Split", lambda s: s.path_policy.mode, PathMode.SPLIT),
        ("spec.decode.scaling.replicas=3", lambda s: s.decode.scaling.replicas, 3),
        ("spec.decode.resources.kvCache=1.5Mi", lambda s: s.decode.resources.kv_cache, 3 << 19),
        (
            "spec.decode.resources={dramBuffer: 2Mi, kvCache: 3M}",
            lambda s: s.decode.resources.kv_cache,
            3 * 10**6,
        ),
        ("spec.model.servedName='12'", lambda s: s.model.served_name, "12"),
        ("spec.storage.files.path=a=b", lambda s: s.storage.files.path, "a=b"),
        ("spec.nics=[]", lambda s: s.nics, ()),
        ("spec.model={uri: hf://a/b, servedName: m, revision: v1}", lambda s: s.model.revision, "v1"),
    ],
)
def test_an_override_is_typed_as_in_yaml(override, read, value):
    assert read(load_cluster(EXAMPLE, [override]).spec) == value


def test_overrides_apply_in_order_and_make_what_is_missing(spec):
    bare = yaml.safe_load(EXAMPLE.read_text())
    del bare["spec"]["prefill"]["scaling"], bare["spec"]["pathPolicy"]
    overrides = [
        "spec.prefill.scaling.replicas=2",
        "spec.prefill.scaling.replicas=4",
        "spec.pathPolicy.mode=Split",
        "spec.nics[0].role=storage",
        "spec.nics[0].match=a",
        "spec.nics.0.match=b",
    ]
    made = load_cluster(spec(yaml.safe_dump(bare)), overrides).spec
    assert made.prefill.scaling.replicas == 4
    assert made.path_policy.mode is PathMode.SPLIT
    assert made.nics[0].match == "b"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "spec.pathPolicy.mode=split",
            ["spec.pathPolicy.mode is 'split'", "PrefillOnly", "did you mean Split?"],
        ),
        (
            "spec.pathPolicy.mode=Both",
            [
                "spec.pathPolicy.mode is 'Both'",
                "write PrefillOnly or DecodeOnly or ShorterQueue or Split or Auto",
            ],
        ),
        ("spec.pathPolicy.mod=Split", ["spec.pathPolicy.mod is not known", "did you mean mode?"]),
        ("spec.kv.block_tokens=64", ["spec.kv.block_tokens is not known", "did you mean blockTokens?"]),
        ("spec.zebra=1", ["spec.zebra is not known", "remove it; spec has decode, disruption, drain"]),
        ("zebra=1", ["no such key in the document", "apiVersion, kind, metadata, spec"]),
        ("spec.decode.resources.kvCache=256MB", ["'256MB'", "'MB' is not a unit", "256Mi or 256M"]),
        ("spec.decode.resources.kvCache=256 Mi", ["not a quantity of bytes", "256Mi, 4Gi or 500M"]),
        ("spec.decode.resources.kvCache=5X", ["'X' is not a unit", "256Mi, 4Gi or 500M"]),
        ("spec.decode.resources.kvCache=-1", ["kvCache is -1", "not a quantity"]),
        ("spec.decode.resources.kvCache=true", ["kvCache is True", "not a quantity"]),
        ("spec.decode.resources.kvCache=1Ki", ["kvCache is '1Ki'", "at least 1Mi"]),
        ("spec.storage.files.size=1000", ["size is 1000", "at least 1Mi"]),
        ("spec.decode.scaling.replicas=-1", ["replicas is -1", "at least 0"]),
        ("spec.decode.scaling.replicas=0", ["spec is not acceptable", "serve together", "set both"]),
        ("spec.decode.scaling.replicas=65", ["replicas is 65", "at most 64"]),
        ("spec.decode.scaling.replicas=two", ["replicas is 'two'", "a whole number"]),
        ("spec.decode.scaling.replicas=1.5", ["replicas is 1.5", "a whole number"]),
        ("spec.decode.scaling.replicas=true", ["replicas is True", "a whole number"]),
        ("spec.decode.scaling.mode=Planner", ["scaling is not acceptable", "needs maxReplicas", "add it"]),
        ("spec.prefill.parallelism.data=9", ["data is 9", "at most 8"]),
        ("spec.kv.blockTokens=100", ["blockTokens is 100", "16, 32, 64, 128, 256"]),
        ("spec.model.servedName=123", ["servedName is 123", "text", "quotes"]),
        ("spec.model.servedName=''", ["servedName is ''", "fill it in"]),
        ("spec.model.servedName=a b", ["servedName is 'a b'", "must match"]),
        (
            "spec.model.uri=s3://bucket/x",
            ["spec.model is not acceptable", "file:///absolute/path, hf://org/name"],
        ),
        ("spec.model.uri=file://relative", ["spec.model is not acceptable", "file:///absolute/path"]),
        ("spec.model.uri=hf://justname", ["spec.model is not acceptable", "hf://org/name"]),
        ("spec.model.revision=main", ["spec.model is not acceptable", "hf:// models", "remove revision"]),
        ("spec.model.dtype=float16", ["dtype is 'float16'", "allowed: float32, bfloat16"]),
        ("spec.nics[0].match=eth*", ["spec.nics[0].role is missing", "What the device carries"]),
        ("spec.nics=eth0", ["spec.nics is 'eth0'", "must be a list"]),
        ("spec.nics=[{role: disk, match: a}]", ["spec.nics[0].role is 'disk'", "storage, compute"]),
        ("spec.nics=[{role: storage, match: a, linkBps: 0}]", ["linkBps is 0", "more than 0"]),
        ("spec.kv=", ["spec.kv has no value", "a mapping"]),
        ("spec.prefill.resources=3", ["resources is 3", "a mapping"]),
        ("spec.model={1: 2}", ["spec.model", "missing"]),
        ("apiVersion=v2", ["apiVersion is 'v2'", "dualpath.io/v1alpha1"]),
        ("metadata.name=My Cluster", ["metadata.name is 'My Cluster'", "Lower-case letters"]),
        ("metadata.name=" + "a" * 64, ["at most 40"]),
        ("spec.pathPolicy.mode={a: [", ["is not acceptable YAML", "put the value in quotes"]),
        ("spec.kv={blockTokens: 64, blockTokens: 32}", ["stands twice"]),
        ("spec.pathPolicy.mode", ["is not key=value"]),
        ("=3", ["is not key=value"]),
        ("spec..kv=3", ["is not key=value"]),
        ("spec.nics[4].match=a", ["no such place", "use [0] to [0]"]),
        ("spec.model.uri.deeper=a", ["no such place", "leads into the value 'file:///"]),
        ("spec[0]=a", ["no such place", "leads into a mapping"]),
        ("spec.nics[0]=7", ["spec.nics[0] is 7", "a mapping of keys"]),
        ("apiVersion={a: 1}", ["apiVersion is not acceptable", "dualpath.io/v1alpha1"]),
        ("spec.prefill.batching.computeQuota=300", ["computeQuota is 300", "duration", "300ms"]),
    ],
)
def test_a_bad_override_is_told_with_field_value_and_remedy(override, parts):
    text = told(EXAMPLE, override)
    assert text.startswith(f"--set {override}") or "spec.model is" in text or ".role is missing" in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["the document is empty"]),
        ("# only a comment\n", ["the document is empty"]),
        ("- a\n- b\n", ["a list, not a mapping"]),
        ("just words", ["a str, not a mapping"]),
        ("a: b: c", ["line 1, column 5", "not acceptable YAML"]),
        ("a: [1, 2", ["not acceptable YAML"]),
        ("a:\n\t- b", ["not acceptable YAML", "indented by spaces"]),
        ("a: 1\nb: 2\na: 3\n", ["line 3, column 1", "'a' stands twice"]),
        ("a: 1\n---\nb: 2\n", ["more than one document"]),
        ("a: !!python/object/apply:os.system [true]", ["not acceptable YAML"]),
        ("{[a]: b}", ["not acceptable YAML"]),
        ("a: &x [*x]\n" + "b: " + "[" * 3000, ["nested too deeply"]),
        (b"\x7fELF\x00\x01\xff\xfe", ["is not text"]),
        (b"a: \x00", ["not acceptable YAML"]),
        (b"x" * (1 << 21), ["too large for a spec"]),
        (
            "kind: DualPathCluster\n",
            ["apiVersion is missing", "also:", "spec is missing", "metadata is missing"],
        ),
    ],
    ids=lambda value: None,
)
def test_a_file_that_is_no_spec_is_told_with_its_name(spec, content, parts):
    path = spec(content)
    text = told(path)
    assert text.startswith(str(path))
    for part in parts:
        assert part in text


def test_a_missing_file_and_a_directory_are_told(tmp_path):
    assert "No such file" in told(tmp_path / "none.yaml")
    assert "directory" in told(tmp_path)


def test_errors_of_the_file_name_the_file_and_errors_of_flags_the_flag(spec):
    path = spec(EXAMPLE.read_text().replace("blockTokens: 64", "blockTokens: 63"))
    text = told(path, "spec.decode.scaling.replicas=-1")
    assert f"{path}: spec.kv.blockTokens is 63" in text
    assert "--set spec.decode.scaling.replicas=-1: spec.decode.scaling.replicas is -1" in text


def test_a_byte_order_mark_is_no_error(spec):
    assert load_cluster(spec("\ufeff" + EXAMPLE.read_text())) == load_cluster(EXAMPLE)


def test_an_alias_is_fine_but_a_merge_cannot_hide_a_double_key(spec):
    text = EXAMPLE.read_text().replace(
        "resources: {dramBuffer: 256Mi, kvCache: 256Mi}", "resources: &r {dramBuffer: 2Mi, kvCache: 2Mi}", 1
    )
    text = text.replace("resources: {dramBuffer: 256Mi, kvCache: 256Mi}", "resources: *r")
    assert load_cluster(spec(text)).spec.decode.resources.kv_cache == 2 << 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(DualPathCluster.model_fields["spec"].annotation.model_fields)), json_values)
def test_any_value_anywhere_is_accepted_or_told(section, value):
    data = yaml.safe_load(EXAMPLE.read_text())
    alias = DualPathCluster.model_fields["spec"].annotation.model_fields[section].alias
    data["spec"][alias] = value
    try:
        build_cluster(data, source="x")
    except SpecError as error:
        assert str(error).startswith("x: spec.")


@given(st.text(max_size=40))
def test_any_override_is_applied_or_told(text):
    try:
        load_cluster(EXAMPLE, [text])
    except SpecError as error:
        assert error.remedy
