"""The bundled pocket collection: twelve small domains with graded test queries and recorded model replies.

Written for this project with a large language model, so that the whole pipeline can be run and tested without
one; `CARD.md` beside this file says how it came to be and what it can and cannot show.
"""

from __future__ import annotations

from pathlib import Path

POCKET_FOLDER = Path(__file__).parent / "domains"

POCKET_DOMAINS = (
    "biology", "earth_science", "economics", "psychology", "robotics", "stackoverflow", "sustainable_living",
    "leetcode", "pony", "aops", "theoremqa_questions", "theoremqa_theorems",
)  # fmt: skip


def pocket_folder(domain: str) -> Path:
    """The BEIR folder of one of `POCKET_DOMAINS`; beside it lie `recorded.jsonl` and `off_domain.jsonl`."""
    if domain not in POCKET_DOMAINS:
        raise ValueError(f"{domain!r} is no pocket domain; known: {', '.join(POCKET_DOMAINS)}")
    return POCKET_FOLDER / domain
