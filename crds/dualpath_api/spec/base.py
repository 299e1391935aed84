"""What all sections of the spec share, and the rules between their fields.

A rule is written once and holds twice: as CEL in the CustomResourceDefinition, where the API server applies
it, and as Python, where YAML files and webhooks are read. tests/cluster applies both to the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

MEBIBYTE = 1 << 20

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""Names of Kubernetes objects that the spec refers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a section; `holds` is None for rules about changes, as only the API server knows both."""

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None


class Section(BaseModel):
    """Base of all sections: camelCase in YAML, unknown keys refused, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.RULES:
            if rule.holds is not None and not rule.holds(self):
                raise ValueError(rule.message)
        return self


def unchanged(field: str, label: str) -> Rule:
    """A rule that a field of a section keeps its value. `field` is the camelCase name."""
    return Rule(
        cel=f"self.{field} == oldSelf.{field}",
        message=f"{label} cannot be changed; make another DualPathCluster",
    )
