"""Relative links of all Markdown pages, and the runbooks of alerts, lead to files and headings that exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")

RUNBOOK = re.compile(r"runbook_url: (\S+)")


def pages() -> list[Path]:
    """README and its neighbours, docs and examples."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@cache
def anchors(page: Path) -> frozenset[str]:
    """Anchors as GitHub makes them from headings; repeated headings get -1, -2."""
    found: list[str] = []
    for line in _prose(page):
        if match := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            seen = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
            found.append(f"{slug}-{seen}" if seen else slug)
    return frozenset(found)


def problems() -> Iterator[str]:
    """One line for each link that leads nowhere."""
    for page in pages():
        for line in _prose(page):
            for link in (a or b for a, b in LINK.findall(re.sub(r"`[^`]*`", "", line))):
                if not re.match(r"[a-z]+:", link):
                    yield from _problem(page, link, page.parent)
    for rules in sorted(ROOT.glob("charts/*/rules/*.yaml")):
        for link in RUNBOOK.findall(rules.read_text()):
            yield from _problem(rules, link, ROOT)


def _problem(source: Path, link: str, base: Path) -> Iterator[str]:
    """What is wrong with a link; `base` is the folder that it starts from."""
    name, _, anchor = link.partition("#")
    target = (base / name).resolve() if name else source
    if not target.exists():
        yield f"{source.relative_to(ROOT)}: {link}: there is no such file"
    elif anchor and target.suffix == ".md" and anchor not in anchors(target):
        yield f"{source.relative_to(ROOT)}: {link}: there is no such heading"


def _prose(page: Path) -> Iterator[str]:
    """Lines outside code blocks."""
    inside = False
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield line


def main() -> int:
    """Print the problems; 1 if there are any."""
    found = list(problems())
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
