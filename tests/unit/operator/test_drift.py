"""Drift: what others add is no matter, what they change or remove of ours is."""

from __future__ import annotations

import copy

import pytest
from desired_world import LOCAL, MANAGED, NODES, cluster_of, rendered
from hypothesis import given
from hypothesis import strategies as st

from dualpath_operator.drift import differences

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = [item for spec in (LOCAL, MANAGED, NODES) for item in rendered(cluster_of(spec))]


@given(VALUES)
def test_nothing_differs_from_itself(value):
    assert differences(value, value) == []


@given(VALUES, VALUES)
def test_values_without_a_difference_agree_where_both_are_plain(one, other):
    if not isinstance(one, dict | list) and not isinstance(other, dict | list):
        assert (differences(one, other) == []) == (one == other)


def defaulted(value: object) -> object:
    """As the API server completes and orders things."""
    if isinstance(value, dict):
        return {"aDefault": 1, **{key: defaulted(value[key]) for key in sorted(value)}}
    if isinstance(value, list):
        items = [defaulted(item) for item in value]
        named = items and all(isinstance(item, dict) and "name" in item for item in items)
        return [*reversed(items), {"name": "added-by-another"}] if named else items
    return value


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{obj['kind']}-{obj['metadata']['name']}")
def test_what_the_api_server_adds_to_our_objects_is_no_drift(obj):
    assert differences(obj, defaulted(obj)) == []


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [found for key in value for found in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [found for place, item in enumerate(value) for found in leaves(item, (*path, place))]
    return [path]


@given(st.data())
def test_any_value_of_ours_that_changes_is_drift(data):
    obj = data.draw(st.sampled_from(OBJECTS))
    *above, last = data.draw(st.sampled_from(leaves(obj)))
    live = place = copy.deepcopy(obj)
    for step in above:
        place = place[step]
    place[last] = "changed"
    assert differences(obj, live)


@pytest.mark.parametrize(
    ("wanted", "live", "found"),
    [
        ({"a": {}}, {}, []),
        ({"a": []}, {}, []),
        ({"a": [1, 2]}, {"a": [1]}, [".a"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [".a[0]", ".a[1]"]),
        ({"a": [{"name": "x", "v": 1}]}, {"a": [{"name": "y"}, {"name": "x", "v": 2}]}, [".a[x].v"]),
        ({"a": [{"name": "x"}]}, {"a": []}, [".a[x]"]),
        ({"a": {"b": 1}}, {"a": "text"}, [".a"]),
        ({"a": [1]}, {"a": "text"}, [".a"]),
        ({"a": "text"}, {}, [".a"]),
    ],
)
def test_differences_are_told_by_their_path(wanted, live, found):
    assert differences(wanted, live) == found
