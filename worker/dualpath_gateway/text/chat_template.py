"""The checkpoint's chat template: messages to prompt text, in a sandbox and with a time limit.

Templates come with checkpoints, messages with clients; neither is trusted. The globals and settings are those
that templates on the hub are written for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dualpath_api.errors import UnsupportedError


class TemplateFailed(Exception):  # noqa: N818  the client's messages are at fault, not this code
    """The template refused the messages, or could not be rendered with them."""


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks words for training; here they are only text."""

    tags = {"generation"}  # noqa: RUF012  the base class says so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The body, as if the tags were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One or several named templates (`default`, `tool_use`) with the tokenizer's special tokens."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationBlock],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        self._special = dict(special_tokens)
        self._templates = {name: environment.from_string(source) for name, source in sources.items()}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
        seconds: float = 5.0,
    ) -> str:
        """The prompt. Raises TemplateFailed, also when rendering takes longer than `seconds`."""
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        values: dict[str, Any] = {"add_generation_prompt": True, **self._special, **(extra or {})}
        pieces, end = [], time.monotonic() + seconds
        try:
            for piece in self._templates[name].generate(
                messages=messages, tools=tools, documents=None, **values
            ):
                pieces.append(piece)
                if time.monotonic() > end:
                    raise TemplateFailed(f"the chat template took longer than {seconds} s")
        except TemplateFailed:
            raise
        except TemplateError as error:
            raise TemplateFailed(f"the chat template refused the messages: {error.message}") from None
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise TemplateFailed(f"the chat template cannot handle these messages: {error}") from None
        return "".join(pieces)


def load_template(directory: Path, config: Mapping[str, Any]) -> ChatTemplate | None:
    """The template of a checkpoint: chat_template.jinja, else tokenizer_config.json; None: it has none.

    config: the content of tokenizer_config.json. Raises UnsupportedError for a template that does not parse.
    """
    file, sources = directory / "chat_template.jinja", {}
    found = config.get("chat_template")
    if isinstance(found, str):
        sources["default"] = found
    elif isinstance(found, list):
        sources |= {entry["name"]: entry["template"] for entry in found}
    if file.is_file():
        sources["default"] = file.read_text(encoding="utf-8")
    if "default" not in sources:
        return None
    special = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    try:
        return ChatTemplate(sources, special)
    except TemplateError as error:
        raise UnsupportedError(
            f"the chat template of {directory} cannot be used",
            cause=str(error),
            remedy="fix chat_template.jinja, or remove it: completions work without",
        ) from None


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As Jinja's own, but without HTML escapes."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
