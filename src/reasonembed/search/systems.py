"""What can rank: BM25, a dense model, a run made elsewhere. A system indexes a corpus, the index is searched."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, get_args

import msgspec
import numpy as np

from reasonembed.corpora import Corpus
from reasonembed.encoder.prompts import query_prompt
from reasonembed.encoder.shards import Encodes, VectorCache
from reasonembed.errors import ConfigError
from reasonembed.records import Run
from reasonembed.search.bm25 import Bm25Index, Weighting
from reasonembed.search.dense import Rows, search_vectors
from reasonembed.search.ranking import top_k

logger = logging.getLogger(__name__)

Excluded = Mapping[str, Collection[str]]
"""query_id -> ids of the documents that are removed from its ranking before the cut."""

Queries = Mapping[str, str | tuple[str, ...]]
"""query_id -> the text to search with, or several wordings whose scores are summed."""


def wordings(text: str | tuple[str, ...]) -> tuple[str, ...]:
    """The one or more texts of a query."""
    return (text,) if isinstance(text, str) else text


class Encoder(Encodes, Protocol):
    """The seam to a model that turns texts into vectors (see `reasonembed.encoder.model.Encoder`)."""

    @property
    def name(self) -> str:
        """What a protocol calls the model, unless told otherwise."""
        ...

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> what the model wants before a text; may be empty."""
        ...


class Setting(msgspec.Struct, frozen=True):
    """What of a system belongs into the protocol of a score."""

    model: str
    search: str  # e.g. "exact" or "query-side BM25 (k1 0.9, b 0.4)"
    instruction: str = ""  # put before every query; empty for none
    max_tokens: int | None = None  # longest query and document; None where there is no limit
    dtype: str = ""  # of the model's weights; empty where there is no model
    queries: str = ""  # which wordings it searches with; empty for those that it is given


class Index(Protocol):
    """One corpus, ready to be searched."""

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        """The best `k` documents of each query, best first.

        `excluded`: what is left out of each query's ranking.  `domain` picks the instruction, where a system
        has one for each.
        """
        ...


class System(Protocol):
    """Anything that ranks the documents of a corpus for a query."""

    @property
    def name(self) -> str: ...

    def index(self, corpus: Corpus) -> Index: ...

    def setting(self, domain: str) -> Setting: ...


class Bm25System:
    """BM25 as a bag of words (`bag`) or query-side (`query`), in the language of the corpus."""

    def __init__(self, weighting: Weighting = "bag", *, language: str = "en", k1: float = 0.9, b: float = 0.4) -> None:
        if weighting not in get_args(Weighting):
            raise ConfigError(f'the weighting is "{weighting}"; it must be one of {", ".join(get_args(Weighting))}.')
        self.weighting: Weighting = weighting
        self.language, self.k1, self.b = language, k1, b
        self.name = "bm25" if weighting == "bag" else "bm25q"

    def index(self, corpus: Corpus) -> Bm25Ranker:
        texts = (document.content for document in corpus)
        index = Bm25Index.build(texts, corpus.ids, language=self.language, k1=self.k1, b=self.b)
        return Bm25Ranker(index, self.weighting)

    def setting(self, domain: str) -> Setting:
        kind = "bag-of-words BM25" if self.weighting == "bag" else "query-side BM25"
        search = f"{kind} (k1 {self.k1:g}, b {self.b:g}, analyser {self.language})"
        return Setting(model=self.name, search=search)


class Bm25Ranker:
    """A BM25 index together with the weighting of the queries."""

    def __init__(self, index: Bm25Index, weighting: Weighting) -> None:
        self._index, self._weighting = index, weighting

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        return self._index.search(
            {query_id: wordings(text) for query_id, text in queries.items()},
            k=k,
            weighting=self._weighting,
            excluded=excluded,
        )


class DenseSystem:
    """A model that embeds queries and documents; ranked exactly, by inner product of the unit vectors.

    `model_name`: what the protocol calls the model; the encoder's own name if None.
    `instructions`: one for every query, or one for each domain by name; empty for bare queries.
    `own_prompts`: put before queries what the model declares for the domain, else its `query` prompt, else
    nothing; instructions are not used then.
    `max_tokens`: of queries and documents; the model's own limit where it is None.
    `query_encoder`: where queries are encoded otherwise than documents; the same encoder if None.
    `cache`: where vectors of documents are kept, so that a stopped encoding goes on; None keeps them in memory.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        name: str | None = None,
        model_name: str | None = None,
        instructions: str | Mapping[str, str] = "",
        own_prompts: bool = False,
        max_tokens: int | None = None,
        query_encoder: Encoder | None = None,
        cache: VectorCache | None = None,
    ) -> None:
        self.encoder = encoder
        self.query_encoder = query_encoder or encoder
        self.name = name or encoder.name
        self.model_name = model_name or encoder.name
        self.instructions = instructions
        self.own_prompts = own_prompts
        self.max_tokens = max_tokens
        self.cache = cache

    def index(self, corpus: Corpus) -> DenseRanker:
        vectors: Rows
        if self.cache is None:
            vectors = self.encoder.encode([document.content for document in corpus], max_tokens=self.max_tokens)
        else:
            vectors = self.cache.document_vectors(self.encoder, corpus, max_tokens=self.max_tokens)
        return DenseRanker(self, corpus.ids, vectors)

    def instruction(self, domain: str) -> str:
        """The instruction for the queries of `domain`. Raises ConfigError if there is none among several."""
        if isinstance(self.instructions, str):
            return self.instructions
        if domain not in self.instructions:
            raise ConfigError(
                f'{self.name} has no instruction for the domain "{domain}", only for '
                f"{', '.join(self.instructions) or 'none'}. Add one, or give one instruction for all."
            )
        return self.instructions[domain]

    def prompt(self, domain: str) -> str:
        """What stands before the text of every query of `domain`."""
        if self.own_prompts:
            return self.encoder.prompts.get(domain, self.encoder.prompts.get("query", ""))
        return query_prompt(self.instruction(domain))

    def setting(self, domain: str) -> Setting:
        kept_as = self.cache.kept_as if self.cache else "float32"
        return Setting(
            model=self.model_name,
            search="exact, inner product" + (f", documents kept as {kept_as}" if kept_as != "float32" else ""),
            instruction=self.prompt(domain) if self.own_prompts else self.instruction(domain),
            max_tokens=self.max_tokens or self.encoder.max_tokens,
            dtype=self.encoder.dtype,
        )


class DenseRanker:
    """The vectors of one corpus, and the model for the queries."""

    def __init__(self, system: DenseSystem, doc_ids: Sequence[str], vectors: Rows) -> None:
        self._system, self._doc_ids, self._vectors = system, doc_ids, vectors

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        if not queries:
            return {}
        texts = [wordings(text) for text in queries.values()]
        vectors = self._system.query_encoder.encode(
            [wording for several in texts for wording in several],
            prompt=self._system.prompt(domain),
            max_tokens=self._system.max_tokens,
        )
        starts = np.cumsum([0, *map(len, texts[:-1])])
        summed = np.add.reduceat(vectors, starts, axis=0)  # summed vectors give summed scores
        return search_vectors(
            summed, self._vectors, query_ids=list(queries), doc_ids=self._doc_ids, k=k, excluded=excluded
        )


class RunSystem:
    """A ranking that was made elsewhere, e.g. read from a TREC file; query ids must match."""

    def __init__(self, run: Run, *, name: str) -> None:
        self.run, self.name = run, name

    def index(self, corpus: Corpus) -> RunRanker:
        unknown = {doc_id for scores in self.run.values() for doc_id in scores if doc_id not in corpus}
        return RunRanker(self.run, frozenset(unknown))

    def setting(self, domain: str) -> Setting:
        return Setting(model=self.name, search="as in the run file")


class RunRanker:
    """A run over one corpus; documents of other corpora are passed over."""

    def __init__(self, run: Run, unknown: frozenset[str]) -> None:
        self._run, self._unknown = run, unknown

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        if missing := [query_id for query_id in queries if query_id not in self._run]:
            logger.warning(
                "the run has no ranking for %d of the %d queries of %s; they score 0.",
                len(missing),
                len(queries),
                domain or "the collection",
            )
        self._report_unknown(queries, domain or "the collection")
        found: Run = {}
        for query_id in queries:
            scores = self._run.get(query_id, {})
            apart = self._unknown.union((excluded or {}).get(query_id, ()))
            values = np.fromiter(scores.values(), dtype=np.float64, count=len(scores))
            found[query_id] = top_k(values, list(scores), k=k, excluded=apart)
        return found

    def _report_unknown(self, queries: Queries, domain: str) -> None:
        if unknown := len(self._run.keys() - queries.keys()):
            logger.info("%d queries of the run are not among those of %s; they are passed over.", unknown, domain)
        affected = sum(not self._unknown.isdisjoint(scores) for q, scores in self._run.items() if q in queries)
        if affected:
            logger.warning(
                "the run ranks documents that the corpus of %s lacks, for %d of its queries; they are passed over.",
                domain,
                affected,
            )
