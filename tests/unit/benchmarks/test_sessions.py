"""Recorded sessions: what the bundled file holds, how it is scaled, and what is said of a wrong file."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import BUNDLED, Scale, Session, Turn, prompt, read_sessions

from dualpath_api.errors import SpecError

HEAD = "session,context_tokens,generated_tokens,wait_s\n"
TURNS = st.lists(
    st.builds(
        Turn,
        context=st.integers(0, 10_000),
        generated=st.integers(0, 3_000),
        wait_s=st.floats(0, 1_000),
    ),
    min_size=1,
    max_size=12,
)
SCALES = st.builds(Scale, tokens=st.integers(1, 512), time=st.floats(1, 50), longest_wait_s=st.floats(0, 100))


def test_the_bundled_file_has_20_sessions_whose_prompts_are_mostly_what_was_said_before() -> None:
    sessions = read_sessions(BUNDLED, 20, 16)
    assert len({one.name for one in sessions}) == 20
    again = sum(min(a.context, b.context) for one in sessions for a, b in pairwise(one.turns))
    assert again > 0.9 * sum(turn.context for one in sessions for turn in one.turns)


def test_the_first_turns_of_the_first_sessions_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text(f"# a remark\n{HEAD}a,100,5,0\na,120,6,2.5\nb,50,1,0\nb,60,1,9\n")
    first = Turn(context=100, generated=5, wait_s=0.0)
    assert read_sessions(file, 1, 1) == (Session(name="a", turns=(first,)),)
    assert [one.turns[1].wait_s for one in read_sessions(file, 2, 2)] == [2.5, 9.0]


@given(TURNS, SCALES)
def test_each_scaled_prompt_begins_with_all_that_was_said_before(turns: list[Turn], scale: Scale) -> None:
    fresh = count()
    said: list[int] = []
    scaled = scale.of(Session(name="any", turns=tuple(turns)))
    assert len(scaled.turns) == len(turns)
    for turn in scaled.turns:
        sent = prompt(said, turn, lambda: next(fresh))
        assert len(sent) == turn.context > len(said)
        assert sent[: len(said)] == said
        assert turn.generated >= 1
        assert 0 <= turn.wait_s <= scale.longest_wait_s / scale.time
        said = [*sent, *(next(fresh) for _ in range(turn.generated))]


@pytest.mark.parametrize(
    ("text", "sessions", "turns", "told"),
    [
        (f"{HEAD}a,1,1,0\n", 2, 1, "cannot replay 2 sessions"),
        (f"{HEAD}a,1,1,0\n", 0, 1, "cannot replay 0 sessions"),
        (f"{HEAD}a,1,1,0\na,2,1,0\nb,1,1,0\n", 2, 2, "cannot replay 2 turns"),
        (HEAD, 1, 1, "has 0 sessions"),
        ("", 1, 1, "is no file of sessions"),
        ("a,b\n", 1, 1, "is no file of sessions"),
        (f"{HEAD}a,1,1\n", 1, 1, "line 2 is not a turn"),
        (f"{HEAD}a,1,1,0\n\n", 1, 1, "line 3 is not a turn"),
        (f"{HEAD}a,-1,1,0\n", 1, 1, "line 2 is not a turn"),
        (f"{HEAD}a,1,1,nan\n", 1, 1, "line 2 is not a turn"),
        (f"{HEAD}a,1,1,inf\n", 1, 1, "line 2 is not a turn"),
        (f"{HEAD}a,one,1,0\n", 1, 1, "line 2 is not a turn"),
    ],
)
def test_a_wrong_file_is_told_of(tmp_path: Path, text: str, sessions: int, turns: int, told: str) -> None:
    file = tmp_path / "some.csv"
    file.write_text(text)
    with pytest.raises(SpecError, match=told):
        read_sessions(file, sessions, turns)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told_of(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "some.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SpecError, match="cannot read the sessions"):
        read_sessions(file, 1, 1)
