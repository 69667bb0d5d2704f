"""Training examples in: from ReMixer's rows, or from the released data format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.data_files import file_stem, place, read_rows
from reasonembed.domains import RELEASE_DEVICES, Domain, shipped_or_general
from reasonembed.errors import InputError, shown
from reasonembed.files import sha256_json
from reasonembed.records import Example, Graded, kept_apart
from reasonembed.texts import text_key

_SUFFIX = "-formatted.jsonl"


class TrainingExample(msgspec.Struct, frozen=True):
    """A query with the texts of its positives and negatives, and all that a batch needs to know of it."""

    example_id: str  # unique within its domain
    domain: str
    instruction: str
    query: str
    reasoning_query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    positive_grades: tuple[int, ...] = ()  # empty: not graded
    negative_grades: tuple[int, ...] = ()
    group_size: int = 16
    global_queries: int = 64
    never_negative: frozenset[str] = frozenset()
    """`text_key`s of its annotated positives, its sources and their copies: masked in a batch (law 1)."""

    @property
    def is_graded(self) -> bool:
        """Whether every positive and negative has its grade."""
        graded = (len(self.positive_grades), len(self.negative_grades))
        return graded == (len(self.positives), len(self.negatives))


class _Released(msgspec.Struct):
    """A line of a released file; its field names stay in this reader. Unknown fields are ignored."""

    query: str
    pos: list[str]
    neg: list[str]
    prompt: str
    reasoning_query: str = ""
    train_group_size: int | None = None
    batch_size: int | None = None
    pos_scores: list[float] | None = None
    neg_scores: list[float] | None = None
    never_negative: list[str] = []  # ours: `text_key`s of the source and its copies, where they were known


def from_examples(
    examples: Iterable[Example], corpus: Corpus, domain: Domain, *, allow_source: bool = False
) -> list[TrainingExample]:
    """ReMixer's examples with their texts from `corpus`, batch shape and instruction from `domain`.

    allow_source: let a query's source stand among its positives, for the paper's ablation alone.
    Raises InputError for an id that the corpus lacks, an example without a positive, or one whose source, companion or
    a copy of them stands among its passages (law 1).
    """
    rows = []
    for example in examples:
        where = f"the example {shown(example.query_id)} of {domain.name}"
        if not allow_source:
            _refuse_source(example, where)
        positives = _texts(example.positives, corpus, where)
        apart = [corpus[doc_id].content for doc_id in kept_apart(example) if doc_id in corpus]
        row = TrainingExample(
            example_id=example.query_id,
            domain=domain.name,
            instruction=domain.instruction,
            query=example.query,
            reasoning_query=example.reasoning_query,
            positives=positives,
            negatives=_texts(example.negatives, corpus, where),
            positive_grades=tuple(graded.grade for graded in example.positives),
            negative_grades=tuple(graded.grade for graded in example.negatives),
            group_size=domain.group_size,
            global_queries=domain.global_queries,
            never_negative=frozenset(text_key(text) for text in (*positives, *apart)),
        )
        rows.append(checked(row, where))
    return rows


def read_released(path: Path | str, domain: Domain | str | None = None) -> list[TrainingExample]:
    """The examples of a released file, or of every `<domain>-formatted.jsonl` in a folder.

    domain: a name overrides the file's; a `Domain` gives the batch shape too, which otherwise comes from
    the file, and where the file has none from the shipped domain of that name (else `general`). The
    format names no source, so only annotated positives are kept from being negatives, and the texts whose
    hashes `analyze contamination --filter-out` left in `never_negative`. Raises InputError with file and line
    for a broken line, a missing field, an empty text, or no positive; and for a folder without such files. Whether an
    example without negatives can be trained on is for `batches.check_negatives` to say.
    """
    path = Path(path)
    shared: dict[str, str] = {}
    rows = [row for file in released_files(path) for row in _read_file(file, domain, shared)]
    if not rows:
        raise InputError(f"{path} holds no examples. Put one JSON object on each line.")
    return rows


def released_files(path: Path) -> list[Path]:
    """The released files in a folder, or the file itself. Raises InputError for a folder without any."""
    files = sorted(path.glob(f"*{_SUFFIX}*")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no *{_SUFFIX} file. Give such a file, or a folder of them.")
    return files


def _read_file(path: Path, domain: Domain | str | None, shared: dict[str, str]) -> Iterator[TrainingExample]:
    stem = file_stem(path).removesuffix("-formatted")
    name = domain.name if isinstance(domain, Domain) else domain or stem
    shipped = shipped_or_general(name)
    for number, row in read_rows(path, _Released):
        where = place(path, number)
        group_size, global_queries = _batch_shape(row, domain, shipped)
        positives = tuple(shared.setdefault(text, text) for text in row.pos)
        example = TrainingExample(
            example_id=f"{stem}:{number}",
            domain=name,
            instruction=row.prompt,
            query=row.query,
            reasoning_query=row.reasoning_query,
            positives=positives,
            negatives=tuple(shared.setdefault(text, text) for text in row.neg),
            positive_grades=_grades(row.pos_scores, len(row.pos), "pos_scores", where),
            negative_grades=_grades(row.neg_scores, len(row.neg), "neg_scores", where),
            group_size=group_size,
            global_queries=global_queries,
            never_negative=frozenset((*map(text_key, positives), *row.never_negative)),
        )
        yield checked(example, where)


def _batch_shape(row: _Released, domain: Domain | str | None, shipped: Domain) -> tuple[int, int]:
    """Passages a query and queries a global batch: from a domain file, else the data file, else the
    shipped domain.
    """
    if isinstance(domain, Domain):
        return domain.group_size, domain.global_queries
    group_size = shipped.group_size if row.train_group_size is None else row.train_group_size
    global_queries = shipped.global_queries if row.batch_size is None else row.batch_size * RELEASE_DEVICES
    return group_size, global_queries


def _refuse_source(example: Example, where: str) -> None:
    apart = kept_apart(example)
    for graded in (*example.positives, *example.negatives):
        if graded.doc_id in apart:
            raise InputError(
                f"{where} has {shown(graded.doc_id)}, its source, a companion or a copy of them, among its passages: a "
                f"trivial positive or a false negative. Make the examples again, or take it out."
            )


def _texts(graded: Iterable[Graded], corpus: Corpus, where: str) -> tuple[str, ...]:
    for one in graded:
        if one.doc_id not in corpus:
            raise InputError(
                f"{where} names the document {shown(one.doc_id)}, which {corpus.origin} lacks. Give the corpus that "
                f"the examples were made from."
            )
    return tuple(corpus[one.doc_id].content for one in graded)


def _grades(scores: list[float] | None, expected: int, key: str, where: str) -> tuple[int, ...]:
    if not scores:
        return ()
    if len(scores) != expected:
        raise InputError(f"{where}: {key} has {len(scores)} entries for {expected} texts. They must match one to one.")
    return tuple(int(score) for score in scores)


def checked(row: TrainingExample, where: str) -> TrainingExample:
    """`row`. Raises InputError, beginning with `where`, for an empty text, no positive, or a shape out of range."""
    if not row.query.strip():
        raise InputError(f"{where}: the query is empty. Give it a text or drop the example.")
    if not row.positives:
        raise InputError(f"{where}: no positives. Every example needs one at least; drop it.")
    for kind, texts in (("positive", row.positives), ("negative", row.negatives)):
        for which, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"{where}: {kind} {which} of {len(texts)} is empty. Give it a text or take it out.")
    if row.group_size < 2 or row.global_queries < 1:
        raise InputError(
            f"{where}: {row.group_size} passages a query, {row.global_queries} queries a batch; at least 2 and 1 are "
            f"needed."
        )
    return row


def data_hash(examples: Iterable[TrainingExample]) -> str:
    """A name for the data, whatever the order of its rows."""
    return sha256_json(sorted(sha256_json(_plain(example)) for example in examples))


def _plain(example: TrainingExample) -> dict[str, object]:
    return {**msgspec.structs.asdict(example), "never_negative": sorted(example.never_negative)}
