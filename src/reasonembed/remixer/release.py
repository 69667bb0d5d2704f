"""The published format: one JSON object a line, one file a domain, with texts (PAPER.md section 1, step 5).

Foreign field names stay in this file. The grades are always written, as `pos_scores` and `neg_scores`. Every
row
has its reasoning query, which reasoning intensity needs in training: a query whose reasoning query was
dropped is not mined for, and so never gets here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.records import Example

STAGE = "release"


class ReleasedExample(msgspec.Struct, frozen=True):
    """A line of `<domain>-formatted.jsonl`."""

    prompt: str  # the retrieval instruction
    query: str
    reasoning_query: str
    pos: tuple[str, ...]
    neg: tuple[str, ...]
    train_group_size: int
    batch_size: int  # queries per device of 8
    pos_scores: tuple[int, ...]
    neg_scores: tuple[int, ...]


def release_name(domain: str) -> str:
    """The name of a domain's released file."""
    return f"{domain}-formatted.jsonl"


def release(examples: Iterable[Example], corpus: Corpus, domain: Domain) -> Iterator[ReleasedExample]:
    """The examples with the texts of their documents, in the published format."""
    for example in examples:
        yield ReleasedExample(
            prompt=domain.instruction,
            query=example.query,
            reasoning_query=example.reasoning_query,
            pos=tuple(corpus[one.doc_id].content for one in example.positives),
            neg=tuple(corpus[one.doc_id].content for one in example.negatives),
            train_group_size=domain.group_size,
            batch_size=domain.batch_size,
            pos_scores=tuple(one.grade for one in example.positives),
            neg_scores=tuple(one.grade for one in example.negatives),
        )
