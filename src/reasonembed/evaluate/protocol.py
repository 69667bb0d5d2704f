"""What a score means: everything that must be equal before two scores may be compared."""

from __future__ import annotations

import re

import msgspec


class Protocol(msgspec.Struct, frozen=True):
    """How one system was judged; `str(protocol)` is what stands beside its scores."""

    benchmark: str  # its name, or the names of its domains
    revision: str  # hash of corpora, queries, qrels and exclusions
    n_domains: int
    n_queries: int
    queries: str  # "original" or "reasoning" (each query's reasoning_query in its place)
    model: str
    search: str  # "exact, inner product", or which BM25 with its parameters
    instructions: dict[str, str]  # domain -> what stood before its queries; empty texts for none
    max_tokens: int | None  # longest query and document; None: no limit
    dtype: str
    n_excluded: int  # (query, document) pairs that were removed before the cut
    measures: tuple[str, ...]
    depth: int  # documents kept for each query
    confidence: float
    resamples: int
    seed: int
    origins: tuple[str, ...] = ()  # where the benchmark's files come from, with their commits; empty for folders

    def __str__(self) -> str:
        """Three lines: the benchmark, the system, the figures."""
        limit = f"at most {self.max_tokens} tokens" if self.max_tokens else "any length"
        precision = f", {self.dtype}" if self.dtype else ""
        exclusions = f"{self.n_excluded} pairs excluded before the cut" if self.n_excluded else "no exclusions"
        return (
            f"benchmark: {self.benchmark} ({self._origins()}revision {self.revision[:12]}), "
            f"{self.n_queries} {self.queries} queries "
            f"in {self.n_domains} {'domain' if self.n_domains == 1 else 'domains'}, {exclusions}\n"
            f"system: {self.model}; search: {self.search}; {self._instruction()}; {limit}{precision}\n"
            f"figures: {', '.join(self.measures)} by trec_eval's definition over the best {self.depth}, "
            f"mean over domains; {self.confidence:.0%} bootstrap interval over queries, by domain, "
            f"{self.resamples} resamples, seed {self.seed}"
        )

    def _origins(self) -> str:
        """The origins with the first 12 digits of their commits."""
        return "".join(f"{re.sub('(?<=@[0-9a-f]{12})[0-9a-f]{28}$', '', origin)}, " for origin in self.origins)

    def _instruction(self) -> str:
        different = set(self.instructions.values())
        if different <= {""}:
            return "no instruction"
        if len(different) == 1:
            return f'instruction "{different.pop()}"'
        return "an instruction for each domain"
