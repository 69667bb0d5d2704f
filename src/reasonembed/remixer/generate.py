"""Step 1, conditioned query generation: a query for which the source's principle is of use (paper).

Deviation, on request: a query from several documents asks for the idea that they share, by a prompt of its own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from reasonembed.corpora import Corpus
from reasonembed.domains import LANGUAGES, Domain
from reasonembed.errors import shown
from reasonembed.llm.chat import Door, Reply, Request, custom_id
from reasonembed.llm.replies import split_thinking
from reasonembed.records import Document, Dropped
from reasonembed.remixer.config import GenerateConfig
from reasonembed.remixer.prompt import fenced, fill, load_prompt
from reasonembed.remixer.rows import Conditions, GeneratedQuery, Source, query_id_of
from reasonembed.texts import row_seed

STAGE = "generate"

_CODE_FENCE = re.compile(r"\A```[\w-]*[ \t]*\n(.*)\n[ \t]*```\Z", re.DOTALL)
_HEADING = re.compile(
    r"\A(?:\*\*|#+ *)?(?:generated |here is the )?(?:query|question|post)(?:\*\*)? *: *(?:\*\*)?\s*",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("„", "“"), ("«", "»"), ("「", "」"))

_TEXT = r"(?:text|document|article|paragraph|excerpt|passage|snippet|solution|page)"
_POINTING = re.compile(
    rf"""\b(?:
        (?:the|this|that|given|provided)\s+(?:passage|excerpt)\b(?!\s+(?:of|through|from|between|into|to|across|in)\b)
      | this\s+document\b
      | (?:the|this)\s+(?:above|aforementioned|provided|preceding|source)\s+{_TEXT}\b
      | (?:the|this)\s+{_TEXT}\s+(?:above|provided)\b
      | (?:according\s+to|based\s+on)\s+(?:the|this)\s+{_TEXT}\b
      | as\s+(?:described|stated|explained|mentioned)\s+in\s+(?:the|this)\s+{_TEXT}\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_POINTING_AT_SEVERAL = re.compile(
    rf"""\b(?:
        (?:the|these|those|both|given|provided)\s+(?:passages|excerpts)\b
            (?!\s+(?:of|through|from|between|into|to|across|in)\b)
      | these\s+documents\b
      | (?:the|these)\s+(?:above|aforementioned|provided|preceding|source)\s+{_TEXT}s\b
      | (?:the|these)\s+{_TEXT}s\s+(?:above|provided)\b
      | (?:according\s+to|based\s+on)\s+(?:the|these|both)\s+{_TEXT}s\b
      | as\s+(?:described|stated|explained|mentioned)\s+in\s+(?:the|these|both)\s+{_TEXT}s\b
      | document\s+[1-5]\b                    # as the prompt numbers them
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def prompt_name(sources_per_query: int) -> str:
    """The prompt that a query from so many documents is written by."""
    return STAGE if sources_per_query == 1 else f"{STAGE}_several"


def generate_queries(
    sources: Callable[[], Iterable[Source]],
    corpus: Corpus,
    domain: Domain,
    config: GenerateConfig,
    *,
    seed: int,
    door: Door,
    total: int | None = None,
) -> Iterator[GeneratedQuery | Dropped]:
    """A query per source and its companions, in the order of the sources, or the reason why there is none.

    sources: called twice, as `Door.replies` wants it.
    """

    def requests() -> Iterator[Request]:
        for source in sources():
            yield _request(source, corpus, domain, config, seed)

    replies = door.replies(requests, label=f"{domain.name} {STAGE}", total=total)
    for source, (_, reply) in zip(sources(), replies, strict=True):
        conditions = Conditions(conditioned=False)
        if door.honours_conditions:
            conditions = sample_conditions(source.doc_id, config, seed=seed)
        yield _row(source, reply, conditions, config)


def sample_conditions(doc_id: str, config: GenerateConfig, *, seed: int) -> Conditions:
    """The length and education asked for with one document: a function of the seed and its id alone."""
    draw = random.Random(row_seed(seed, STAGE, doc_id))
    return Conditions(conditioned=True, length=_draw(draw, config.lengths), education=_draw(draw, config.education))


def clean_query(text: str) -> str:
    """The reply without what models put around a query: thinking, a code fence, quotation marks, a heading.

    Marks go only where they enclose the whole, so that a query which quotes or contains code stays as it is.
    """
    cleaned = split_thinking(text).text
    while True:
        before = cleaned
        if (fence := _CODE_FENCE.match(cleaned)) and "```" not in fence.group(1):
            cleaned = fence.group(1).strip()
        cleaned = _HEADING.sub("", cleaned, count=1)
        for opening, closing in _QUOTES:
            if cleaned.startswith(opening) and cleaned.endswith(closing) and len(cleaned) > 1:
                inner = cleaned[1:-1]
                if opening not in inner and closing not in inner:
                    cleaned = inner.strip()
        if cleaned == before:
            return cleaned


def refuse_query(query: str, config: GenerateConfig, *, several: bool = False) -> tuple[str, str] | None:
    """Reason and detail if a cleaned reply is no query that stands alone; None if it is one.

    several: it was written from several documents, so that it must not point at them in the plural either.

    The words that give a reference to the source away are English ones; in other languages the prompt alone
    asks for it. "The passage of time" and a text that the query itself speaks of are left alone.
    """
    if len(query) < config.min_chars:
        return "query_too_short", f"{len(query)} characters: {shown(query)}"
    if len(query) > config.max_chars:
        return "query_too_long", f"{len(query)} characters, at most {config.max_chars} wanted"
    if match := _POINTING.search(query) or (several and _POINTING_AT_SEVERAL.search(query)):
        start = max(0, match.start() - 20)
        return "points_at_its_source", shown(query[start : match.end() + 20])
    return None


def _draw(draw: random.Random, weights: Mapping[str, float]) -> str | None:
    choices = sorted(weights)  # so that the order in a file decides nothing
    return draw.choices(choices, [weights[choice] for choice in choices])[0] if choices else None


def _request(source: Source, corpus: Corpus, domain: Domain, config: GenerateConfig, seed: int) -> Request:
    conditions = sample_conditions(source.doc_id, config, seed=seed)
    doc_ids = (source.doc_id, *source.companion_ids)
    fields = {
        "query_kind": domain.query_kind,
        "document_kind": domain.document_kind,
        "generation": domain.generation,
        "length": conditions.length or "",
        "education": conditions.education or "",
        "language": LANGUAGES[domain.language].capitalize(),
        **_shown_documents([corpus[doc_id] for doc_id in doc_ids]),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, *doc_ids),
        messages=fill(load_prompt(prompt_name(len(doc_ids))), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, source.doc_id),
    )


def _shown_documents(documents: Sequence[Document]) -> dict[str, str]:
    """The fields of the prompt that hold one document, or several: numbered, each in a fence of its own."""
    texts = [fenced(document.content) for document in documents]
    if len(texts) == 1:
        return {"document": texts[0]}
    numbered = (f"Document {number}:\n<document>\n{text}\n</document>" for number, text in enumerate(texts, 1))
    return {"count": str(len(texts)), "documents": "\n\n".join(numbered)}


def _row(source: Source, reply: Reply, conditions: Conditions, config: GenerateConfig) -> GeneratedQuery | Dropped:
    query_id = query_id_of(source.doc_id)
    if reply.failure:
        return Dropped(query_id, f"reply_{reply.failure.kind}", reply.failure.detail)
    query = clean_query(reply.text)
    if refused := refuse_query(query, config, several=bool(source.companion_ids)):
        return Dropped(query_id, *refused)
    return GeneratedQuery(
        query_id=query_id,
        source_id=source.doc_id,
        query=query,
        conditions=conditions,
        companion_ids=source.companion_ids,
    )
