"""Objects are created, later applied: what the spec no longer asks for goes all the same, and stays ours alone."""

from __future__ import annotations

from stories import Site, spec
from waiting import until


def annotations(site: Site) -> dict[str, str]:
    """Of the gateway's Service."""
    return dict(site.bed.kube.get("services", "c", site.namespace)["metadata"]["annotations"])


def test_an_annotation_that_the_spec_no_longer_has_goes(site: Site) -> None:
    site.operator()
    site.apply(spec(1, 1, gateway={"service": {"annotations": {"example.com/a": "1", "example.com/b": "2"}}}))
    site.ready()
    assert annotations(site)["example.com/a"] == "1"
    site.bed.kube.annotate("services", "c", site.namespace, {"example.com/foreign": "kept"})
    site.change(gateway={"service": {"annotations": {"example.com/a": None}}})
    until(lambda: "example.com/a" not in annotations(site), 30, what="the annotation to go")
    assert annotations(site)["example.com/b"] == "2"
    assert annotations(site)["example.com/foreign"] == "kept"
    site.change(gateway={"service": {"annotations": {"example.com/b": None}}})
    until(lambda: "example.com/b" not in annotations(site), 30, what="the other annotation to go")
