"""Reranking by the annotator: a language model's grade of query and document, averaged over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain, load_domain, shipped_or_general
from reasonembed.encoder.backbones import public_name
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import NETWORK_KINDS, ClientConfig, parse_endpoint
from reasonembed.llm.prices import BATCH, LOCAL
from reasonembed.records import Candidate, Label
from reasonembed.remixer.annotate import annotate_candidates
from reasonembed.remixer.config import AnnotateConfig
from reasonembed.remixer.rows import MinedQuery
from reasonembed.texts import row_seed


def _named(spec: str) -> str:
    """What a protocol calls a language model: no address, and of a folder no path."""
    kind, _, place = spec.removeprefix(BATCH).partition(":")
    if spec.removeprefix(BATCH).startswith(NETWORK_KINDS):
        return parse_endpoint(spec.removeprefix(BATCH)).model or spec
    if kind == "local":
        return f"{LOCAL}{public_name(place)}"
    return f"{kind}:{Path(place).name}" if place else spec


class AnnotatorGrader:
    """Grades candidates with the annotation prompt (PAPER.md section 1, step 4), behind the one door.

    spec: the model, as for synthesis.  journal: where replies are kept, so that none is paid for twice.
    domain: a shipped domain or a TOML file that defines relevance; empty: the benchmark's domain where it is a
    shipped one, else `general`.
    """

    def __init__(
        self,
        spec: str,
        *,
        journal: Path,
        samples: int = 1,
        domain: str = "",
        config: AnnotateConfig | None = None,
        client: ClientConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.spec, self.journal, self.samples, self.domain = spec, journal, samples, domain
        self.config, self.client, self.seed = config or AnnotateConfig(), client, seed
        self.domain_of("")  # an unknown domain shows before anything is ranked

    @property
    def model(self) -> str:
        """The model's name, and how it is asked."""
        mean = f"mean grade of {self.samples} samples" if self.samples > 1 else "one grade"
        relevance = f", relevance of {self.domain}" if self.domain else ""
        return f"{_named(self.spec)} ({mean} at temperature {self.config.temperature:g}{relevance})"

    def domain_of(self, name: str) -> Domain:
        """The domain whose words the prompt uses for the benchmark's domain `name`."""
        return load_domain(self.domain) if self.domain else shipped_or_general(name)

    def grades(
        self, domain: str, queries: Mapping[str, str], candidates: Mapping[str, Sequence[str]], corpus: Corpus
    ) -> dict[tuple[str, str], float]:
        """(query_id, doc_id) -> mean grade, 1 to 5, over the samples that gave one; without one, no entry.

        Raises EndpointError, after what was answered was committed, if some requests failed in transport.
        """

        def mined() -> Iterable[MinedQuery]:
            for query_id, doc_ids in candidates.items():
                yield MinedQuery(query_id, "", (), tuple(Candidate(doc_id, 0.0) for doc_id in doc_ids))

        grades: dict[tuple[str, str], list[int]] = {}
        with open_door(self.spec, journal_path=self.journal, client=self.client) as door:
            for sample in range(self.samples):
                rows = annotate_candidates(
                    mined,
                    queries,
                    corpus,
                    self.domain_of(domain),
                    self.config,
                    seed=row_seed(self.seed, "rerank", str(sample)),
                    door=door,
                    total=sum(map(len, candidates.values())),
                )
                for row in rows:
                    if isinstance(row, Label):
                        grades.setdefault((row.query_id, row.doc_id), []).append(row.grade)
        return {pair: sum(given) / len(given) for pair, given in grades.items()}
