"""Step 1, conditioned query generation: a query for which the source's principle is of use (paper)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

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
    """A query per source, in the order of the sources, or the reason why there is none.

    sources: called twice, as `Door.replies` wants it.
    """

    def requests() -> Iterator[Request]:
        for source in sources():
            yield _request(corpus[source.doc_id], domain, config, seed)

    replies = door.replies(requests, label=f"{domain.name} {STAGE}", total=total)
    for source, (_, reply) in zip(sources(), replies, strict=True):
        conditions = Conditions(conditioned=False)
        if door.honours_conditions:
            conditions = sample_conditions(source.doc_id, config, seed=seed)
        yield _row(source.doc_id, reply, conditions, config)


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


def refuse_query(query: str, config: GenerateConfig) -> tuple[str, str] | None:
    """Reason and detail if a cleaned reply is no query that stands alone; None if it is one.

    The words that give a reference to the source away are English ones; in other languages the prompt alone
    asks for it. "The passage of time" and a text that the query itself speaks of are left alone.
    """
    if len(query) < config.min_chars:
        return "query_too_short", f"{len(query)} characters: {shown(query)}"
    if len(query) > config.max_chars:
        return "query_too_long", f"{len(query)} characters, at most {config.max_chars} wanted"
    if match := _POINTING.search(query):
        start = max(0, match.start() - 20)
        return "points_at_its_source", shown(query[start : match.end() + 20])
    return None


def _draw(draw: random.Random, weights: Mapping[str, float]) -> str | None:
    choices = sorted(weights)  # so that the order in a file decides nothing
    return draw.choices(choices, [weights[choice] for choice in choices])[0] if choices else None


def _request(document: Document, domain: Domain, config: GenerateConfig, seed: int) -> Request:
    conditions = sample_conditions(document.doc_id, config, seed=seed)
    fields = {
        "query_kind": domain.query_kind,
        "document_kind": domain.document_kind,
        "generation": domain.generation,
        "length": conditions.length or "",
        "education": conditions.education or "",
        "language": LANGUAGES[domain.language].capitalize(),
        "document": fenced(document.content),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, document.doc_id),
        messages=fill(load_prompt(STAGE), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, document.doc_id),
    )


def _row(source_id: str, reply: Reply, conditions: Conditions, config: GenerateConfig) -> GeneratedQuery | Dropped:
    query_id = query_id_of(source_id)
    if reply.failure:
        return Dropped(query_id, f"reply_{reply.failure.kind}", reply.failure.detail)
    query = clean_query(reply.text)
    if refused := refuse_query(query, config):
        return Dropped(query_id, *refused)
    return GeneratedQuery(query_id=query_id, source_id=source_id, query=query, conditions=conditions)
