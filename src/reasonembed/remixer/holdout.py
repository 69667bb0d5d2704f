"""A test set on anyone's corpus: some sources are set aside with their queries, as a BEIR folder.

Near-copies of each other go together, so that no query is tested whose source's copy was trained on. Where queries have
several sources, those that share one with a query set aside are not trained on either: they say the same twice.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from reasonembed.beir import Collection, write_beir
from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.files import storage_errors
from reasonembed.records import Dropped, Example, Query, kept_apart, source_ids
from reasonembed.remixer.assemble import JudgedQuery, example_of
from reasonembed.remixer.config import AssembleConfig
from reasonembed.remixer.duplicates import copy_groups
from reasonembed.remixer.rows import MinedQuery
from reasonembed.texts import row_seed

logger = logging.getLogger(__name__)

STAGE = "holdout"
BEIR_FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "excluded.tsv")


def choose_holdout(mined: Iterable[MinedQuery], share: float, *, seed: int) -> frozenset[str]:
    """The sources to set aside: `share` of those that were mined for, rounded to the nearest, at least one.

    Whole groups of near-copies, in an order that seed and ids decide; one group is always left to train on.
    """
    if share <= 0:
        return frozenset()
    copies: dict[str, Sequence[str]] = {row.source_id: row.copy_ids for row in mined}
    groups = sorted(copy_groups(copies), key=lambda group: (row_seed(seed, STAGE, group[0]), group[0]))
    wanted = max(1, math.floor(share * len(copies) + 0.5))
    chosen: list[str] = []
    for group in groups[:-1]:
        if len(chosen) >= wanted:
            break
        chosen += group
    if not chosen:
        logger.warning("no holdout: all %d sources are copies of one another, or there is only one", len(copies))
    return frozenset(chosen)


def tested_sources(mined: Iterable[MinedQuery], held_out: frozenset[str]) -> frozenset[str]:
    """All documents that the queries set aside were written from: more than `held_out` if they had several each."""
    return frozenset(doc_id for row in mined if row.source_id in held_out for doc_id in source_ids(row))


def held_out_examples(
    judged: Iterable[JudgedQuery], held_out: frozenset[str], config: AssembleConfig
) -> Iterator[Example | Dropped]:
    """The queries of the sources set aside; one without a positive cannot be judged and is dropped."""
    for one in judged:
        if one.query.source_id not in held_out:
            continue
        example = example_of(one, config)
        if example.positives:
            yield example
        else:
            yield Dropped(example.query_id, "no_positive", f"none of {len(one.graded)} grades is high enough")


def gain(grade: int, config: AssembleConfig) -> int:
    """What a grade counts in the qrels: 1 for the lowest positive grade, one more for each above (1, 2, 3).

    Our choice: nDCG then tells a direct answer from a partial one, and what is no positive counts nothing.
    """
    return max(0, grade - config.positive_grade + 1)


def write_holdout(
    folder: Path, examples: Iterable[Example], corpus: Corpus, domain: Domain, config: AssembleConfig
) -> list[str]:
    """Write the BEIR files of the held-out queries into `folder`, beside what stands there; their names.

    `excluded.tsv` holds each query's sources and their copies: they are removed from the ranking before the cut.
    Nothing is written if there are no examples. Raises InputError for ids that cannot stand in a TSV file, StorageError
    when the disk refuses.
    """
    rows = list(examples)
    if not rows:
        logger.warning("%s: no held-out query has a positive, so there is no test set", domain.name)
        return []
    collection = Collection(
        name=domain.name,
        corpus=corpus,
        queries={row.query_id: Query(row.query_id, row.query, row.reasoning_query) for row in rows},
        qrels={row.query_id: {one.doc_id: gain(one.grade, config) for one in row.positives} for row in rows},
        excluded={row.query_id: kept_apart(row) for row in rows},
    )
    temporary = folder / ".tmp-beir"
    try:
        write_beir(temporary, collection)
        with storage_errors(folder):
            for name in BEIR_FILES:
                (folder / name).parent.mkdir(exist_ok=True)
                (temporary / name).replace(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return list(BEIR_FILES)
