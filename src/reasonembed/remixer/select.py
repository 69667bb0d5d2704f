"""Step 0, selection: which documents of the corpus serve as sources (PAPER.md section 1).

Every document has a fate: it becomes a source, or it is dropped with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from reasonembed.corpora import JSONL_SUFFIXES, Corpus
from reasonembed.domains import Domain
from reasonembed.errors import InputError, shown
from reasonembed.files import read_lines, read_numbered_jsonl
from reasonembed.llm.chat import Door, Reply, Request, custom_id
from reasonembed.records import Document, Dropped
from reasonembed.remixer.config import SelectConfig
from reasonembed.remixer.prompt import fenced, fill, load_prompt
from reasonembed.remixer.rows import Source
from reasonembed.texts import row_seed, text_key

STAGE = "select"

_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class _ListedSource(msgspec.Struct):
    doc_id: str


def select_sources(
    corpus: Corpus,
    domain: Domain,
    config: SelectConfig,
    *,
    seed: int,
    limit: int = 0,
    door: Door | None = None,
    listed: Collection[str] | None = None,
    benchmark: Collection[str] = (),
    counts: Counter[str] | None = None,
) -> Iterator[Source | Dropped]:
    """The sources in corpus order, and every other document with the reason why it is none.

    door: asked whether a document belongs to the domain; needed if `config.domain_check`.
    listed: restricts the sources, after all documents went through length filter and domain check.
    benchmark: ids that a benchmark's qrels name; never sources, unless `config.allow_benchmark_sources`.
    limit: as `config.max_documents`, which it lowers; 0 leaves it. A lower limit selects a part of a higher
    one's.
    Raises InputError if `listed` names a document that the corpus does not have.
    """
    if listed is not None:
        _check_listed(listed, corpus)
    fates: dict[str, Dropped] = {}
    barred = _barred(config, benchmark)
    for document in corpus:
        if refused := _refuse_unread(document, config, barred):
            fates[document.doc_id] = refused
    eligible = sorted(
        (d for d in corpus if d.doc_id not in fates),
        key=lambda d: (row_seed(seed, STAGE, d.doc_id), d.doc_id),
    )
    check = _domain_check(domain, config, seed, door) if config.domain_check else _no_check
    wanted = min(config.max_documents, limit) if limit else config.max_documents
    if listed is None:
        chosen = _choose(eligible, wanted, check, fates)
    else:
        chosen = _choose_listed(eligible, wanted, check, fates, frozenset(listed))
    if counts is not None:
        counts["sources_named_by_benchmark"] = len(chosen.intersection(benchmark))
    for doc_id in corpus.ids:
        yield Source(doc_id) if doc_id in chosen else fates[doc_id]


def eligible_ids(corpus: Corpus, config: SelectConfig, benchmark: Collection[str] = ()) -> frozenset[str]:
    """The documents that may be sources as far as can be said without a model."""
    barred = _barred(config, benchmark)
    return frozenset(document.doc_id for document in corpus if not _refuse_unread(document, config, barred))


def read_sources(path: Path) -> tuple[str, ...]:
    """Document ids from a file: one a line, or JSONL with `doc_id` (other fields are ignored).

    Raises InputError if there is none, or for a line that is not what the file's name promises.
    """
    if path.name.endswith(JSONL_SUFFIXES):
        ids = [row.doc_id for _, row in read_numbered_jsonl(path, _ListedSource)]
    else:
        ids = []
        for number, line in read_lines(path):
            try:
                ids.append(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not valid UTF-8. Save the file as UTF-8.") from error
    if not ids:
        raise InputError(f"{path} names no source. Put one document id on each line.")
    return tuple(dict.fromkeys(ids))


def parse_verdict(text: str) -> bool | None:
    """True for Yes, False for No, None for an answer that is neither or both."""
    first = _VERDICT.match(text)
    if first is None:
        return None
    said = {word.lower() for word in re.findall(r"\b(yes|no)\b", text, re.IGNORECASE)}
    return said == {"yes"} if len(said) == 1 else None


Check = Callable[[Sequence[Document]], Mapping[str, Dropped]]


def _check_listed(listed: Collection[str], corpus: Corpus) -> None:
    unknown = sorted(doc_id for doc_id in listed if doc_id not in corpus)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        names = ", ".join(shown(doc_id) for doc_id in unknown[:5])
        raise InputError(
            f"{len(unknown)} of the {len(listed)} listed sources are not in the corpus "
            f"{corpus.origin}: {names}{more}. "
            f"Correct the list, or give the corpus that it was made for."
        )


def _barred(config: SelectConfig, benchmark: Collection[str]) -> frozenset[str]:
    return frozenset() if config.allow_benchmark_sources else frozenset(benchmark)


def _refuse_unread(document: Document, config: SelectConfig, barred: Collection[str]) -> Dropped | None:
    """What needs no model to be refused."""
    length = len(document.content)
    if length < config.min_chars:
        return Dropped(document.doc_id, "too_short", f"{length} characters, at least {config.min_chars} wanted")
    if length > config.max_chars:
        return Dropped(document.doc_id, "too_long", f"{length} characters, at most {config.max_chars} wanted")
    if document.doc_id in barred:
        return Dropped(document.doc_id, "named_by_benchmark", "its qrels name this document")
    return None


def _choose(eligible: Sequence[Document], wanted: int, check: Check, fates: dict[str, Dropped]) -> set[str]:
    """The first `wanted` of `eligible` that pass the check; no more are checked than needed to find them."""
    unique = _without_copies(eligible, fates)
    chosen: set[str] = set()
    position = 0
    while len(chosen) < wanted and position < len(unique):
        batch = unique[position : position + wanted - len(chosen)]
        position += len(batch)
        refused = check(batch)
        fates.update(refused)
        chosen.update(d.doc_id for d in batch if d.doc_id not in refused)
    for document in unique[position:]:
        fates[document.doc_id] = Dropped(document.doc_id, "not_sampled", f"{wanted} sources were wanted")
    return chosen


def _choose_listed(
    eligible: Sequence[Document],
    wanted: int,
    check: Check,
    fates: dict[str, Dropped],
    listed: Collection[str],
) -> set[str]:
    """As `_choose`, from those of the list; all of `eligible` are checked first."""
    fates.update(check(eligible))
    for document in eligible:
        if document.doc_id not in listed:
            fates.setdefault(document.doc_id, Dropped(document.doc_id, "not_listed"))
    return _choose([d for d in eligible if d.doc_id not in fates], wanted, _no_check, fates)


def _without_copies(documents: Iterable[Document], fates: dict[str, Dropped]) -> list[Document]:
    first: dict[str, str] = {}
    unique = []
    for document in documents:
        original = first.setdefault(text_key(document.content), document.doc_id)
        if original == document.doc_id:
            unique.append(document)
        else:
            fates[document.doc_id] = Dropped(document.doc_id, "exact_copy", original)
    return unique


def _no_check(_documents: Sequence[Document]) -> Mapping[str, Dropped]:
    return {}


def _domain_check(domain: Domain, config: SelectConfig, seed: int, door: Door | None) -> Check:
    if door is None:
        raise ValueError("the domain check needs a door to a language model")

    def check(documents: Sequence[Document]) -> Mapping[str, Dropped]:
        replies = door.replies(
            lambda: (_request(document, domain, config, seed) for document in documents),
            label=f"{domain.name} {STAGE}",
            total=len(documents),
        )
        refusals = (_refuse(document.doc_id, reply) for document, (_, reply) in zip(documents, replies, strict=True))
        return {refused.row_id: refused for refused in refusals if refused}

    return check


def _request(document: Document, domain: Domain, config: SelectConfig, seed: int) -> Request:
    fields = {
        "domain": domain.name.replace("_", " "),
        "document_kind": domain.document_kind,
        "document": fenced(document.content),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, document.doc_id),
        messages=fill(load_prompt(STAGE), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, document.doc_id),
    )


def _refuse(doc_id: str, reply: Reply) -> Dropped | None:
    if reply.failure:
        return Dropped(doc_id, f"reply_{reply.failure.kind}", reply.failure.detail)
    verdict = parse_verdict(reply.text)
    if verdict is None:
        return Dropped(doc_id, "domain_check_unparsable", shown(reply.text))
    return None if verdict else Dropped(doc_id, "off_domain")
