"""Chat templates: what hub templates expect, and what they must not be able to do."""

from __future__ import annotations

import json

import pytest

from dualpath_api.errors import UnsupportedError
from dualpath_gateway.text.chat_template import ChatTemplate, TemplateFailed, load_template

HI = [{"role": "user", "content": "Hi <&> \u00e9"}]


def render(source: str, **values: object) -> str:
    return ChatTemplate({"default": source}, {"bos_token": "<s>"}).render(HI, **values)


def test_special_tokens_messages_and_the_prompt_for_an_answer():
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ add_generation_prompt }}"
    assert render(source) == "<s>Hi <&> \u00e9True"
    assert render(source, extra={"add_generation_prompt": False}).endswith("False")


def test_tojson_does_not_escape():
    assert render("{{ messages[0] | tojson }}") == json.dumps(HI[0], ensure_ascii=False)


def test_blocks_leave_no_whitespace_and_loops_can_break():
    source = "{% for i in range(9) %}\n    {% if i == 2 %}\n{% break %}\n    {% endif %}\n{{ i }}{% endfor %}"
    assert render(source) == "01"


def test_generation_blocks_are_only_text():
    assert render("{% generation %}a{{ 1 }}{% endgeneration %}b") == "a1b"


def test_tools_have_a_template_of_their_own():
    template = ChatTemplate({"default": "d", "tool_use": "t{{ tools | length }}"}, {})
    assert (template.render(HI), template.render(HI, tools=[{}])) == ("d", "t1")


def test_the_date_can_be_asked():
    assert len(render("{{ strftime_now('%Y-%m-%d') }}")) == 10


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing.at_all }}", "no attribute"),
        ("{{ 1 / 'x' }}", "cannot handle"),
        ("{{ messages.append(1) }}", "refused"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refused"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ 1 // 0 }}", "cannot handle"),
    ],
)
def test_what_a_template_cannot_or_may_not_do_is_the_clients_error(source, part):
    with pytest.raises(TemplateFailed, match=part):
        render(source)


def test_a_template_that_goes_on_and_on_is_stopped():
    source = "{% for i in range(99999) %}{% for j in range(99999) %}x{{ j }}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateFailed, match="longer than"):
        render(source, seconds=0.05)


def test_a_file_wins_over_the_tokenizer_config(tmp_path):
    config = {"chat_template": [{"name": "default", "template": "a"}], "bos_token": {"content": "<s>"}}
    template = load_template(tmp_path, config)
    assert template is not None
    assert template.render(HI) == "a"
    (tmp_path / "chat_template.jinja").write_text("b{{ bos_token }}")
    template = load_template(tmp_path, config)
    assert template is not None
    assert template.render(HI) == "b<s>"
    assert load_template(tmp_path / "none", {}) is None


def test_a_template_that_does_not_parse_is_told_at_the_start(tmp_path):
    with pytest.raises(UnsupportedError, match="chat template"):
        load_template(tmp_path, {"chat_template": "{% if %}"})
