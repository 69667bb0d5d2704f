"""The retrievers that mining uses: indexes are built once per corpus, document vectors kept on the disk.

N: documents, D: dimension.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.encoder.prompts import query_prompt
from reasonembed.encoder.shards import VectorCache, Vectors
from reasonembed.records import Run
from reasonembed.remixer.config import MineConfig
from reasonembed.search.bm25 import Bm25Index, Weighting
from reasonembed.search.dense import search_vectors
from reasonembed.search.fuse import pool_by_best_rank, reciprocal_rank_fusion

Excluded = Mapping[str, Collection[str]]


class Rankers:
    """Ranks a corpus for queries as `MineConfig` says. Share one between domains that share a corpus.

    cache: a folder for document vectors, named by all that decides them; it may be deleted at any time.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._bm25: dict[tuple[str, str], Bm25Index] = {}
        self._encoders: dict[tuple[str, int, str], Any] = {}

    def rank(
        self,
        corpus: Corpus,
        domain: Domain,
        config: MineConfig,
        queries: Mapping[str, str],
        excluded: Excluded,
    ) -> Run:
        """The best `config.top_k` documents of each query (query_id -> text), without its `excluded`."""
        runs = []
        for name in config.retrievers:
            if name in ("bm25", "bm25q"):
                weighting: Weighting = "bag" if name == "bm25" else "query"
                runs.append(self._rank_bm25(corpus, domain, config, queries, excluded, weighting))
            else:
                runs.append(self._rank_dense(corpus, domain, config, queries, excluded, name))
        if config.retriever == "pooled":
            return pool_by_best_rank(runs, k=config.top_k)
        return reciprocal_rank_fusion(runs, k=config.top_k) if config.retriever == "fused" else runs[0]

    def bm25(self, corpus: Corpus, language: str) -> Bm25Index:
        """The corpus's index, built the first time that it is asked for."""
        name = (corpus.sha256, language)
        if name not in self._bm25:
            texts = (document.content for document in corpus)
            self._bm25[name] = Bm25Index.build(texts, corpus.ids, language=language)
        return self._bm25[name]

    def _rank_bm25(
        self,
        corpus: Corpus,
        domain: Domain,
        config: MineConfig,
        queries: Mapping[str, str],
        excluded: Excluded,
        weighting: Weighting,
    ) -> Run:
        index = self.bm25(corpus, domain.language)
        return index.search(queries, k=config.top_k, weighting=weighting, excluded=excluded)

    def _rank_dense(
        self,
        corpus: Corpus,
        domain: Domain,
        config: MineConfig,
        queries: Mapping[str, str],
        excluded: Excluded,
        model: str,
    ) -> Run:
        encoder = self._encoder(config, model)
        prompt = query_prompt(domain.instruction) if config.instruction else ""
        return search_vectors(
            encoder.encode(list(queries.values()), prompt=prompt),
            self._document_vectors(corpus, config, model),
            query_ids=list(queries),
            doc_ids=corpus.ids,
            k=config.top_k,
            excluded=excluded,
        )

    def _encoder(self, config: MineConfig, model: str) -> Any:
        from reasonembed.encoder.model import Encoder

        name = (model, config.max_tokens, config.dtype)
        if name not in self._encoders:
            self._encoders[name] = Encoder.load(model, max_tokens=config.max_tokens, dtype=config.dtype)
        return self._encoders[name]

    def _document_vectors(self, corpus: Corpus, config: MineConfig, model: str) -> Vectors:
        """The vectors of all documents, shape (N, D), memory-mapped."""
        from reasonembed.encoder.folder import find_model, fingerprint

        encoder = self._encoder(config, model)
        cache = VectorCache(self.cache, {"weights": fingerprint(find_model(model)), "pooling": encoder.pooling})
        return cache.document_vectors(encoder, corpus)


def model_hashes(config: MineConfig) -> dict[str, str]:
    """Names for the weights of the dense models, wherever their folders lie: `model`, or `model 1` and so on."""
    from reasonembed.encoder.folder import find_model, fingerprint

    hashes = [fingerprint(find_model(model)) for model in config.models]
    return {f"model {place}" if len(hashes) > 1 else "model": name for place, name in enumerate(hashes, 1)}
