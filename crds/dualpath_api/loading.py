"""YAML and `--set` into a validated DualPathCluster; whatever is wrong becomes one SpecError.

The file holds one YAML document (JSON is YAML too). A key that stands twice is refused: YAML would let the
last one win, silently. Keys are camelCase. Overrides name a field from the root,
`spec.pathPolicy.mode=Split`, list items by index, `spec.nics[0].match=eth*`; values are typed as in YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dualpath_api.cluster import DualPathCluster
from dualpath_api.errors import SpecError
from dualpath_api.problems import Step, describe

MAX_FILE_BYTES = 1 << 20
"""A spec is a page of text; something larger is a mistake, such as a checkpoint given as the spec."""


def load_cluster(path: str | Path, overrides: Sequence[str] = ()) -> DualPathCluster:
    """The cluster that a file describes, with overrides applied. Raises SpecError."""
    return build_cluster(read_yaml(Path(path)), overrides, source=str(path))


def build_cluster(data: object, overrides: Sequence[str] = (), *, source: str) -> DualPathCluster:
    """The cluster in parsed YAML; `source` names it in errors. `data` is changed by the overrides."""
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}, not a mapping"
        raise SpecError(
            f"{source}: the document is {kind}",
            cause="a DualPathCluster starts with apiVersion, kind, metadata and spec",
            remedy="see examples/local.yaml for a complete one",
        )
    origins = {_override(data, text): f"--set {text}" for text in overrides}
    try:
        return DualPathCluster.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        raise describe(error, data, source, origins) from None


def read_yaml(path: Path) -> object:
    """The one document of a file. Raises SpecError for what is no such file."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SpecError(
            f"{path}: cannot be read",
            cause=error.strerror or str(error),
            remedy="give the path of a YAML file",
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SpecError(
            f"{path}: is too large for a spec",
            cause=f"it has more than {MAX_FILE_BYTES} bytes",
            remedy="give the path of a DualPathCluster YAML file",
        )
    try:
        return yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path}: is not text", cause=f"byte {error.start} is not UTF-8", remedy="save it as UTF-8 YAML"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _broken(str(path), error) from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key standing twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base, after a look at the keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _broken(
    source: str,
    error: Exception,
    remedy: str = "one DualPathCluster a file, each key once, indented by spaces",
) -> SpecError:
    """What a YAML parser says, in one line with its place."""
    problem, place = str(error), ""
    if isinstance(error, yaml.MarkedYAMLError):
        problem = error.problem or error.context or "malformed"
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    elif isinstance(error, RecursionError):
        problem = "nested too deeply"
    if "single document" in str(error):
        problem = "there is more than one document"
    return SpecError(
        f"{source}{place}: is not acceptable YAML",
        cause=" ".join(problem.split()),
        remedy=remedy,
    )


def _override(data: dict[Any, Any], text: str) -> tuple[Step, ...]:
    """Apply one `key=value` to parsed YAML; returns the path that it set."""
    key, equals, value = text.partition("=")
    steps = _steps(key)
    if not equals or not steps:
        raise SpecError(
            f"--set {text}: is not key=value",
            cause="a dotted key from the root, '=' and a value are needed",
            remedy="for example --set spec.pathPolicy.mode=Split",
        )
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _broken(f"--set {text}", error, "put the value in quotes, of YAML and of your shell") from None
    target: Any = data
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(target, dict) and isinstance(step, str):
            if after is None:
                target[step] = parsed
            elif target.get(step) is None:
                target[step] = [] if isinstance(after, int) else {}
        elif isinstance(target, list) and isinstance(step, int) and step <= len(target):
            if step == len(target):
                target.append([] if isinstance(after, int) else {})
            if after is None:
                target[step] = parsed
        else:
            raise _no_such_place(text, step, target)
        target = target[step]
    return steps


def _steps(key: str) -> tuple[Step, ...]:
    """`spec.nics[0].match` as ("spec", "nics", 0, "match"); empty when it is not a key."""
    if not re.fullmatch(r"\w+(\.\w+|\[\d+\])*", key, flags=re.ASCII):
        return ()
    found = re.findall(r"\w+", key, flags=re.ASCII)
    return tuple(int(step) if step.isdigit() else step for step in found)


def _no_such_place(text: str, step: Step, target: object) -> SpecError:
    if isinstance(target, list):
        cause = f"{step!r} is no index of a list of {len(target)}"
        remedy = f"use [0] to [{len(target)}]; the last adds an item"
    else:
        kind = "a mapping" if isinstance(target, dict) else f"the value {target!r}"
        cause, remedy = f"{step!r} leads into {kind}", "name a field that exists"
    return SpecError(f"--set {text}: there is no such place", cause=cause, remedy=remedy)
