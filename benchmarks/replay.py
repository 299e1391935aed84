"""Replay benchmark: recorded sessions of coding agents on one prefill and one decode engine, by way to read.

Each session is a closed loop: a turn begins when the last has ended and the agent's tools have run; its
prompt is all that was said before and a little more. All sessions run at once, on NICs and a store as in
network.py. Told is the job completion time of a session, from its first request to its last token. What a
session opens with is in the store before it begins, as if it had been interrupted: half of the real ones
have more than 40 turns, and a cold one would count too much among a few. Each way gets token ids of its
own, so that none finds what another has stored. Needs root. Run by `make bench-replay`; --write keeps the
result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import BLOCK, VOCABULARY, Fleet, ask
from bed import KV_PER_TOKEN, LOADED, MODEL, NAME, RESULTS, Bed, bed, provenance
from rich.console import Console
from rich.table import Table
from sessions import BUNDLED, Scale, Session, prompt, read_sessions

from dualpath_api.errors import DualPathError, SpecError

RESULT = RESULTS / "replay.json"
SCALE = Scale(tokens=256, time=20, longest_wait_s=60)
"""140,000 tokens become 547: 17 MiB of KV. A wait of minutes is a person's, not a tool's."""
APART_S = 0.5
STORE = "4Gi"
"""Holds three rounds of all ways (0.3 GB a way); then the oldest go."""
console = Console(stderr=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One finished session; tokens are those of all its prompts."""

    took_s: float
    ttft_s: float
    prompt_tokens: int
    said_tokens: int
    """Of the prompts: what the session has sent or received before."""
    cached_tokens: int


def main() -> int:
    """1 if a request failed, 2 for what cannot be replayed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, default=BUNDLED, help="CSV of sessions (benchmarks/data)")
    parser.add_argument("--sessions", type=int, default=20, help="replayed at once")
    parser.add_argument("--turns", type=int, default=6, help="of each session")
    parser.add_argument("--snic", type=int, default=150, help="Mbit/s of a storage NIC")
    parser.add_argument("--rounds", type=int, default=1, help="of each way, in turns")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    options = parser.parse_args()
    try:
        sessions = scaled(options)
        figures = replayed(sessions, options.snic * 10**6, options.rounds)
    except DualPathError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 2
    except OSError as error:
        console.print(f"a request failed, so that nothing is told: {error}", markup=False, soft_wrap=True)
        return 1
    report(figures)
    if options.write:
        kept = {**provenance("bench-replay", sys.argv[1:]), **figures}
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


def scaled(options: argparse.Namespace) -> tuple[Session, ...]:
    """The sessions to replay. Raises SpecError."""
    for flag in ("snic", "rounds"):
        if getattr(options, flag) < 1:
            raise SpecError(
                f"cannot replay with --{flag} {getattr(options, flag)}",
                cause="it is not positive",
                remedy="give a positive number",
            )
    sessions = tuple(SCALE.of(one) for one in read_sessions(options.trace, options.sessions, options.turns))
    longest = max(turn.context + turn.generated for one in sessions for turn in one.turns)
    if longest > MODEL["max_position_embeddings"]:
        raise SpecError(
            f"{options.trace} has contexts of {longest} tokens after scaling",
            cause=f"the benchmark's model has {MODEL['max_position_embeddings']} positions",
            remedy="leave out its longest sessions, or give fewer --turns",
        )
    return sessions


# ---------------------------------------------------------------- what is measured


def replayed(sessions: Sequence[Session], snic: int, rounds: int) -> dict[str, Any]:
    """Figures of all ways; they take turns."""
    jobs: dict[str, list[list[Job]]] = {way: [] for way in LOADED}
    with bed(1, 1, snic, store=STORE) as made:
        for number, way in itertools.product(range(rounds), LOADED):
            drawn = [random.Random(f"{way} {number} {place}") for place in range(len(sessions))]
            openings = stored(made, sessions, drawn)
            made.use(way)
            began = time.monotonic()
            jobs[way].append(all_at_once(made.cluster.openai, sessions, openings, drawn))
            mean = statistics.fmean(job.took_s for job in jobs[way][-1])
            console.print(f"{way}: {mean:.1f} s a session, {time.monotonic() - began:.0f} s in all")
    ways = {way: summary(found) for way, found in jobs.items()}
    jct = {way: row["jct_s"] for way, row in ways.items()}
    return {
        "sessions": len(sessions),
        "turns": sum(len(one.turns) for one in sessions),
        "scale": {
            "tokens": SCALE.tokens,
            "time": SCALE.time,
            "longest_wait_s": SCALE.longest_wait_s,
            "starts_apart_s": APART_S,
            "kv_bytes_per_token": KV_PER_TOKEN,
            "snic_bits_per_s": snic,
        },
        "waits_s": round(statistics.fmean(sum(t.wait_s for t in one.turns[1:]) for one in sessions), 3),
        "ways": ways,
        "jct_over_prefill_only": {way: round(value / jct["prefill-only"], 3) for way, value in jct.items()},
        "jct_over_oracle": {way: round(value / jct["oracle"], 3) for way, value in jct.items()},
    }


def stored(made: Bed, sessions: Sequence[Session], drawn: Sequence[random.Random]) -> list[list[int]]:
    """What each session opens with, up to a whole block, now in the store. Raises OSError."""
    openings = [
        [source.randrange(*VOCABULARY) for _ in range(one.turns[0].context // BLOCK * BLOCK)]
        for one, source in zip(sessions, drawn, strict=True)
    ]
    made.use("oracle")
    Fleet(made.cluster.openai, NAME, openings).store()
    return openings


def all_at_once(
    openai: str, sessions: Sequence[Session], openings: Sequence[list[int]], drawn: Sequence[random.Random]
) -> list[Job]:
    """Every session in a thread of its own; they begin one after the other. Raises OSError."""

    def run(place: int) -> Job:
        time.sleep(place * APART_S)
        return play(openai, sessions[place], openings[place], drawn[place])

    with ThreadPoolExecutor(len(sessions)) as pool:
        return list(pool.map(run, range(len(sessions))))


def play(openai: str, session: Session, said: list[int], source: random.Random) -> Job:
    """One session from its first request to its last token, after what was `said`. Raises OSError."""
    prompts = known = cached = 0
    ttft_s: list[float] = []
    began = time.monotonic()
    for number, turn in enumerate(session.turns):
        time.sleep(turn.wait_s if number else 0.0)
        sent = prompt(said, turn, lambda: source.randrange(*VOCABULARY))
        answer = ask(openai, NAME, sent, turn.generated)
        prompts, known, cached = prompts + len(sent), known + len(said), cached + answer.cached_tokens
        ttft_s.append(answer.ttft_s)
        said = [*sent, *answer.tokens]
    took_s = time.monotonic() - began
    mean = statistics.fmean(ttft_s)
    return Job(took_s=took_s, ttft_s=mean, prompt_tokens=prompts, said_tokens=known, cached_tokens=cached)


def summary(rounds: Sequence[Sequence[Job]]) -> dict[str, Any]:
    """Of one way: means over sessions and rounds."""
    jobs = [job for found in rounds for job in found]
    prompts, cached = sum(job.prompt_tokens for job in jobs), sum(job.cached_tokens for job in jobs)
    return {
        "jct_s": round(statistics.fmean(job.took_s for job in jobs), 3),
        "jct_rounds_s": [round(statistics.fmean(job.took_s for job in found), 3) for found in rounds],
        "longest_s": round(max(job.took_s for job in jobs), 3),
        "ttft_s": round(statistics.fmean(job.ttft_s for job in jobs), 3),
        "prompt_tokens": prompts // len(rounds),
        "cached_tokens": cached // len(rounds),
        "hit_ratio": round(cached / prompts, 4),
        "hit_ratio_of_said": round(cached / max(1, sum(job.said_tokens for job in jobs)), 4),
    }


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("way", "JCT", "/ prefill-only", "/ oracle", "TTFT", "hits", "of said")
    for way, row in figures["ways"].items():
        ratios = [figures[f"jct_over_{base}"][way] for base in ("prefill_only", "oracle")]
        hits = [f"{row[key]:.1%}" for key in ("hit_ratio", "hit_ratio_of_said")]
        table.add_row(way, f"{row['jct_s']} s", *map(str, ratios), f"{row['ttft_s']} s", *hits)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
