"""The generated definitions: fresh, complete, structural, and of one mind with the models that made them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from api_schema import fields, rules, schema_of, spec_schema
from pydantic import BaseModel, Field
from samples import BAD, MINIMAL, changed, cluster, good

from dualpath_api.cluster import ClusterSpec
from dualpath_api.crd import cluster_crd, group_crd
from dualpath_api.loading import build_cluster
from dualpath_api.schema import section_schema
from dualpath_api.spec.base import Rule, Section
from dualpath_api.status import ClusterStatus, GroupSpec, GroupStatus

ROOT = Path(__file__).parents[3]
SCHEMAS = {crd["spec"]["names"]["kind"]: schema_of(crd) for crd in (cluster_crd(), group_crd())}
FIELDS = [
    (kind, path, field)
    for kind, schema in SCHEMAS.items()
    for part in ("spec", "status")
    for path, field in fields(schema["properties"][part], part)
]
BOUNDS = {
    "string": ("maxLength", "enum"),
    "integer": ("minimum", "enum"),
    "array": ("maxItems",),
}


def sections(section: type[BaseModel] = ClusterSpec) -> Iterator[type[Section]]:
    """All sections of a spec."""
    if issubclass(section, Section):
        yield section
    for field in section.model_fields.values():
        for inner in _models(field.annotation):
            yield from sections(inner)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def test_the_files_are_as_make_crds_writes_them():
    sys.path.insert(0, str(ROOT / "scripts"))
    from generate_crds import wanted

    assert {path for path, text in wanted().items() if path.read_text() != text} == set()
    assert len(wanted()) == 4


@pytest.mark.parametrize(("kind", "path", "field"), FIELDS, ids=lambda value: str(value)[:60])
def test_every_field_is_described_and_bounded(kind, path, field):
    if not path.endswith(("[]", "{}")):
        assert field["description"].endswith((".", ")."))
    if field.get("x-kubernetes-int-or-string"):
        assert "pattern" in field
        return
    bounds = BOUNDS.get(field["type"], ())
    assert not bounds or any(bound in field for bound in bounds)
    if field["type"] == "array":
        assert field["x-kubernetes-list-type"] in ("map", "atomic")
        assert all(key in field["items"]["properties"] for key in field.get("x-kubernetes-list-map-keys", ()))
    if field["type"] == "object":
        assert field.keys() & {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}


def test_only_pod_specs_are_free_of_a_schema():
    free = {path for _, path, field in FIELDS if field.get("x-kubernetes-preserve-unknown-fields")}
    assert free == {f"spec.{role}.podTemplate.spec" for role in ("prefill", "decode", "gateway")}


def test_nothing_is_nullable_and_nothing_refers_elsewhere():
    text = yaml.safe_dump(list(SCHEMAS.values()))
    assert not any(word in text for word in ("nullable", "$ref", "allOf", "oneOf", "not:"))


@pytest.mark.parametrize("section", sorted(set(sections()), key=lambda one: one.__name__))
def test_every_rule_of_a_section_is_in_the_schema(section):
    found = section_schema(section).get("x-kubernetes-validations", [])
    assert found == [{"rule": rule.cel, "message": rule.message} for rule in section.RULES]


def test_messages_say_what_to_do_in_one_sentence():
    told = [message for schema in SCHEMAS.values() for _, _, message in rules(schema)]
    limits = [message for message in told if message.startswith("it must be ")]
    assert len(limits) > 10
    assert all("; " in message for message in told if message not in limits)
    assert not any(message.endswith(".") or message[0].isupper() for message in told)


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.then is None], ids=str)
def test_python_refuses_a_bad_sample_and_names_what_the_rule_names(bad):
    with pytest.raises(Exception, match="remedy") as refusal:
        build_cluster(cluster(changed(MINIMAL, bad.spec), bad.name), source="sample")
    where = bad.path or "metadata.name"
    assert where in str(refusal.value)
    cause, _, remedy = bad.message.partition("; ")
    if bad.path and cause != "it must be at least 0" and not cause.startswith("it must be more"):
        assert cause in str(refusal.value)
        assert remedy in str(refusal.value)


def test_rules_about_changes_are_the_only_ones_without_python():
    without = {rule.cel for section in sections() for rule in section.RULES if rule.holds is None}
    assert without
    assert all("oldSelf" in cel for cel in without)
    with_python = {rule.cel for section in sections() for rule in section.RULES if rule.holds is not None}
    assert not any("oldSelf" in cel for cel in with_python)


@pytest.mark.parametrize("name", good())
def test_a_good_sample_is_the_same_after_a_round_trip(name):
    body = cluster(good()[name])
    read = build_cluster(body, source=name)
    printed = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert build_cluster(printed, source="again") == read


def test_the_good_samples_have_every_field_of_the_spec():
    given = {path for name, spec in good().items() if name != "minimal" for path in _paths(spec)}
    known = {path.replace("[]", "") for path, _ in fields(spec_schema()) if "{}" not in path}
    assert known - given == set()


def _paths(value: object, path: str = "") -> Iterator[str]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner, path)


def test_defaults_in_the_schema_are_those_of_the_models():
    filled = _filled(MINIMAL, spec_schema())
    assert build_cluster(cluster(filled), source="filled") == build_cluster(
        cluster(MINIMAL), source="minimal"
    )
    for crd, spec in (("DualPathEngineGroup", {"cluster": "a", "role": "decode"}),):
        filled = _filled(spec, SCHEMAS[crd]["properties"]["spec"])
        assert GroupSpec.model_validate(filled) == GroupSpec.model_validate(spec)


def _filled(value: object, schema: dict) -> object:
    """As the API server fills in defaults: where a section is present, or has a default itself."""
    if not isinstance(value, dict):
        return value
    made = dict(value)
    for key, inner in schema.get("properties", {}).items():
        if key not in made and "default" in inner:
            made[key] = inner["default"]
        if key in made:
            made[key] = _filled(made[key], inner)
    return made


@pytest.mark.parametrize("model", [ClusterStatus, GroupStatus])
def test_an_empty_status_is_acceptable(model):
    assert model().model_dump(by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    ("annotation", "field", "problem"),
    [
        (str, Field(max_length=3), "no description"),
        (str, Field(description="A."), "text needs max_length"),
        (tuple[int, ...], Field(description="A."), "a list needs max_length"),
        (float, Field(description="A."), "has no structural schema"),
    ],
)
def test_a_field_that_the_api_server_could_not_check_is_an_error_at_once(annotation, field, problem):
    section = type("Sample", (BaseModel,), {"__annotations__": {"a": annotation}, "a": field})
    with pytest.raises(ValueError, match=problem):
        section_schema(section)


def test_a_rule_that_does_not_hold_is_told_by_its_message():
    class Sample(Section):
        RULES = (Rule(cel="self.a > 1", message="a is small; raise it", holds=lambda s: s.a > 1),)
        a: int = Field(description="A.")

    assert Sample(a=2).a == 2
    with pytest.raises(ValueError, match="a is small; raise it"):
        Sample(a=1)
