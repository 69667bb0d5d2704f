"""Training data as it lies in files: the published format, or others' triples; which it is, the rows themselves tell.

Triples (MS MARCO's, for stage one) come in Tevatron's layout, or in sentence-transformers' columns. They have no
reasoning queries, unless a column is called so, and no instruction: that of their domain stands before the query.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from reasonembed.data_files import DATA_SUFFIXES, field_names, file_stem, place, read_rows
from reasonembed.domains import Domain, shipped_or_general
from reasonembed.errors import InputError
from reasonembed.redapter.data import TrainingExample, checked, read_released
from reasonembed.texts import text_key

logger = logging.getLogger(__name__)

PUBLISHED, TEVATRON, COLUMNS = "the published format", "Tevatron triples", "sentence-transformers columns"

_SIGNS = {
    PUBLISHED: re.compile("pos|neg"),
    TEVATRON: re.compile("(positive|negative)_passages"),
    COLUMNS: re.compile(r"positive|negative|negatives|negative_\d+"),
}
"""Fields by which a layout is known: none of them is another's."""

_KNOWN = (
    f"{PUBLISHED} (prompt, query, reasoning_query, pos, neg), {TEVATRON} (query, positive_passages, "
    f"negative_passages), {COLUMNS} (anchor or query; positive; and negative, or negative_1, negative_2 and so on, or "
    f"a list called negatives, or none of these)"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")  # the parts of a split, as `datasets` names them


class _Passage(msgspec.Struct):
    text: str
    title: str | None = None

    @property
    def content(self) -> str:
        """Title and text as Tevatron joins them."""
        return f"{self.title} {self.text}" if self.title else self.text


class _Tevatron(msgspec.Struct):
    """A row of Tevatron's; ids are not read: a row is known by its place."""

    query: str
    positive_passages: list[_Passage]
    negative_passages: list[_Passage]
    reasoning_query: str | None = None


class _Triple(NamedTuple):
    """A row of either layout."""

    number: int
    query: str
    reasoning_query: str
    positives: list[str]
    negatives: list[str]


def read_data(path: Path | str, domain: Domain | str | None = None) -> list[TrainingExample]:
    """The examples of a data file, or of every one that `data_files` finds in a folder.

    domain: as for `read_released`. Without it the domain of triples is called after their file, and instruction and
    batch shape are those of the shipped domain of that name, else of `general`; but a group is no larger than the row
    with most negatives can fill, and no smaller than two, unless a `Domain` says so. Rows without negatives, and files
    without a column for them, are read too; `group_size = 1` alone trains on them (`batches.check_negatives`).
    Raises InputError for a layout that is not known for certain, naming the fields found; and with file and row for a
    missing or mistyped field, an empty text, or no positive.
    """
    return [example for file in data_files(Path(path)) for example in _read_file(file, domain)]


def data_files(path: Path) -> list[Path]:
    """The file itself, or a folder's `*-formatted.jsonl*`; where it has none of these, all its JSONL and parquet files.

    Raises InputError for a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = [one for one in sorted(path.iterdir()) if one.name.endswith(DATA_SUFFIXES) and one.is_file()]
    published = [one for one in files if file_stem(one).endswith("-formatted")]
    if not files:
        raise InputError(f"{path} holds no training data: no .jsonl, .jsonl.gz, .jsonl.zst or .parquet file.")
    return published or files


def layout(names: Sequence[str], where: Path | str) -> str:
    """Which layout has such fields: PUBLISHED, TEVATRON or COLUMNS.

    Raises InputError, naming the fields and what is known, if it is none of them or could be two.
    """
    found = [kind for kind, sign in _SIGNS.items() if any(sign.fullmatch(name) for name in names)]
    if len(found) == 1:
        return found[0]
    unclear = f"could be {' or '.join(found)}" if found else "is no layout of training data that is known"
    raise InputError(
        f"{where} has the fields {', '.join(names)}, which {unclear}. Rename or drop fields to be one of: {_KNOWN}."
    )


def _read_file(path: Path, domain: Domain | str | None) -> list[TrainingExample]:
    names = field_names(path)
    kind = layout(names, path) if names else PUBLISHED
    if kind == PUBLISHED:
        examples = read_released(path, domain)
    else:
        triples = _tevatron(path) if kind == TEVATRON else _columns(path, names)
        examples = _examples(path, triples, domain)
    most = max(len(example.negatives) for example in examples)
    logger.info(
        "%s: read as %s: %d examples of %s, at most %d negatives each.",
        path, kind, len(examples), examples[0].domain, most,
    )  # fmt: skip
    return examples


def _tevatron(path: Path) -> Iterator[_Triple]:
    for number, row in read_rows(path, _Tevatron):
        positives = [passage.content for passage in row.positive_passages]
        negatives = [passage.content for passage in row.negative_passages]
        yield _Triple(number, row.query, row.reasoning_query or "", positives, negatives)


def _columns(path: Path, names: Sequence[str]) -> Iterator[_Triple]:
    """Rows with the columns of the first one, which may be none for negatives; others are not read."""
    query, negatives = _query_column(names, path), _negative_columns(names, path)
    fields: list[Any] = [("query", str, msgspec.field(name=query)), ("positive", str)]
    fields += [(name, list[str] if name == "negatives" else str) for name in negatives]
    fields.append(("reasoning_query", str | None, None))
    kind: Any = msgspec.defstruct("Columns", fields)
    for number, row in read_rows(path, kind):
        texts = row.negatives if negatives == ["negatives"] else [getattr(row, name) for name in negatives]
        yield _Triple(number, row.query, row.reasoning_query or "", [row.positive], texts)


def _query_column(names: Sequence[str], path: Path) -> str:
    found = [name for name in ("anchor", "query") if name in names]
    if len(found) != 1 or "positive" not in names:
        raise InputError(
            f"{path} has the fields {', '.join(names)}; {COLUMNS} are anchor or query (one of them), positive, and "
            f"negatives. Rename those that are meant."
        )
    return found[0]


def _negative_columns(names: Sequence[str], path: Path) -> list[str]:
    numbered = sorted((name for name in names if re.fullmatch(r"negative_\d+", name)), key=lambda name: int(name[9:]))
    kinds = [kind for kind in (numbered, *([name] for name in ("negative", "negatives") if name in names)) if kind]
    if len(kinds) > 1:
        raise InputError(
            f"{path} has the fields {', '.join(names)}; negatives must stand in one way: in negative, in negative_1, "
            f"negative_2 and so on, or in a list called negatives. Rename or drop the others."
        )
    return kinds[0] if kinds else []


def _examples(path: Path, triples: Iterator[_Triple], domain: Domain | str | None) -> list[TrainingExample]:
    stem = file_stem(path)
    name = domain.name if isinstance(domain, Domain) else domain or _SHARD.sub("", stem)
    given = domain if isinstance(domain, Domain) else shipped_or_general(name)
    shared: dict[str, str] = {}  # a passage is often a negative of many queries
    examples = []
    for triple in triples:
        positives, negatives = (
            tuple(shared.setdefault(text, text) for text in texts) for texts in (triple.positives, triple.negatives)
        )
        example = TrainingExample(
            example_id=f"{stem}:{triple.number}",
            domain=name,
            instruction=given.instruction,
            query=triple.query,
            reasoning_query=triple.reasoning_query,
            positives=positives,
            negatives=negatives,
            group_size=given.group_size,
            global_queries=given.global_queries,
            never_negative=frozenset(text_key(text) for text in positives),
        )
        examples.append(checked(example, place(path, triple.number)))
    if not examples:
        raise InputError(f"{path} holds no examples. Put one JSON object on each line.")
    fills = 1 + max(1, *(len(example.negatives) for example in examples))
    if isinstance(domain, Domain) or fills >= given.group_size:
        return examples
    return [msgspec.structs.replace(example, group_size=fills) for example in examples]
