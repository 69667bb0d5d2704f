"""Configuration of synthesis: one frozen table per stage, every default with its origin.

"Paper" is arXiv 2510.08252, "release" the settings of the authors' published code.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from reasonembed.corpora import Reading
from reasonembed.llm.chat import Sampling

_LENGTHS: dict[str, float] = {  # paper
    "fewer than 100 words": 1,
    "100 to 200 words": 2,
    "200 to 300 words": 3,
    "300 to 400 words": 3,
    "400 to 500 words": 2,
    "at least 500 words": 1,
}
MOST_SOURCES = 5  # our choice: an idea that more documents share is hardly one any more, and prompts grow
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_EDUCATION: dict[str, float] = {"high school": 1, "college": 2, "PhD": 2}  # paper


class Decoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a stage's model is to decode; stages that call one extend this with their own keys and defaults.

    TOML knows no null, so 0 and "default" stand for what the endpoint does by itself (some refuse the key).
    """

    temperature: float = 1.0  # 0 to 2; release (generation)
    top_p: float = 1.0  # above 0, at most 1; 1 cuts nothing
    top_k: int = 0  # 0: the endpoint's default
    max_tokens: int = 4096  # our choice: the longest queries take 700, the rest is for thinking
    thinking: bool | Literal["default"] = "default"  # for models that can think or not

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1, or 0 for the endpoint's default.")
        _ = self.sampling  # checks the ranges of the others

    @property
    def sampling(self) -> Sampling:
        """The same as the door to language models wants it."""
        return Sampling(
            temperature=self.temperature,
            top_p=None if self.top_p == 1.0 else self.top_p,
            top_k=self.top_k or None,
            max_tokens=self.max_tokens,
            thinking=None if self.thinking == "default" else self.thinking,
        )


class SelectConfig(Decoding, frozen=True, kw_only=True):
    """Which documents may be sources."""

    min_chars: int = 200  # paper; of title and text together
    max_chars: int = 5000  # paper
    domain_check: bool = True  # paper: asks the generator whether the document belongs to the domain
    max_documents: int = 10_000  # paper: sampled per domain
    allow_benchmark_sources: bool = False  # paper: never; the pocket demo lifts the rule and says so
    sources_per_query: int = 1  # paper; 2 to 5: a query is written from so many documents, see `companions`
    temperature: float = 0.0  # our choice: a yes or no
    max_tokens: int = 2048  # our choice: one word, and room for thinking

    def __post_init__(self) -> None:
        Decoding.__post_init__(self)
        if not 0 <= self.min_chars <= self.max_chars:
            raise ValueError(
                f"min_chars is {self.min_chars} and max_chars {self.max_chars}; 0 <= min_chars <= max_chars."
            )
        if self.max_documents < 1:
            raise ValueError(f"max_documents is {self.max_documents}; it must be at least 1.")
        if not 1 <= self.sources_per_query <= MOST_SOURCES:
            raise ValueError(
                f"sources_per_query is {self.sources_per_query}; it must lie between 1 and {MOST_SOURCES}."
            )

    @property
    def deciding(self) -> dict[str, object]:
        """What decides the sources, for the manifest; one source per query goes without saying."""
        table: dict[str, object] = msgspec.to_builtins(self)
        if self.sources_per_query == 1:
            del table["sources_per_query"]
        return table


class GenerateConfig(Decoding, frozen=True, kw_only=True):
    """How queries are written. The weights need not add up to 1; an empty table sets no such condition."""

    top_p: float = 0.6  # release
    lengths: dict[str, float] = msgspec.field(default_factory=lambda: dict(_LENGTHS))
    education: dict[str, float] = msgspec.field(default_factory=lambda: dict(_EDUCATION))
    min_chars: int = 20  # our choice: shorter replies are no query
    max_chars: int = 12_000  # our choice: longer ones are a model that did not stop

    def __post_init__(self) -> None:
        Decoding.__post_init__(self)
        for name in ("lengths", "education"):
            weights = getattr(self, name)
            if weights and (min(weights.values()) < 0 or not 0 < sum(weights.values()) < float("inf")):
                raise ValueError(f"{name} has the weights {list(weights.values())}; none below 0, at least one above.")
        if not 1 <= self.min_chars <= self.max_chars:
            raise ValueError(
                f"min_chars is {self.min_chars} and max_chars {self.max_chars}; 1 <= min_chars <= max_chars."
            )


class ReasonConfig(Decoding, frozen=True, kw_only=True):
    """How queries are thought through. The release has no code for this step; all defaults are our choice."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 8192  # a reasoning model thinks before it writes


class MineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where candidates come from."""

    retriever: Literal["bm25q", "bm25", "dense", "fused", "pooled"] = "bm25q"  # our choice: no model; paper: dense
    model: str = ""  # for dense and fused: a folder or a name on the hub (paper: gte-Qwen2-7B-instruct)
    pool: tuple[str, ...] = ()  # for pooled, by best rank: "bm25", "bm25q", and models as for dense
    instruction: bool = True  # paper: before each query, dense; false for models trained without
    max_tokens: int = 512  # per text, dense; at most what the model allows
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the model's weights, dense
    top_k: int = 100  # paper
    near_copy: float = 0.8  # shared word 3-grams from which two documents count as the same (law 1)

    def __post_init__(self) -> None:
        if self.retriever in ("dense", "fused") and not self.model:
            raise ValueError(f'retriever is "{self.retriever}", which needs a model; set model to a folder or a name.')
        if self.retriever in ("bm25", "bm25q", "pooled") and self.model:
            raise ValueError(
                f'model is set, but retriever "{self.retriever}" uses none; choose "dense" or "fused"'
                f"{', or name it in pool' if self.retriever == 'pooled' else ''}."
            )
        if self.retriever == "pooled" and (len(self.pool) < 2 or len(set(self.pool)) < len(self.pool)):
            raise ValueError(
                f'pool is {list(self.pool)}; retriever "pooled" needs two or more, all different: "bm25", "bm25q", '
                f"folders or names of models."
            )
        if self.retriever != "pooled" and self.pool:
            raise ValueError(f'pool is set, but retriever is "{self.retriever}"; choose "pooled".')
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1.")
        if not 0 < self.near_copy <= 0.8:
            raise ValueError(f"near_copy is {self.near_copy}; it must be above 0 and at most 0.8, which is the rule.")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1.")

    @property
    def retrievers(self) -> tuple[str, ...]:
        """What ranks, one by one: "bm25", "bm25q", or a dense model's folder or name."""
        if self.retriever == "pooled":
            return self.pool
        if self.retriever == "fused":
            return ("bm25q", self.model)
        return (self.model,) if self.retriever == "dense" else (self.retriever,)

    @property
    def models(self) -> tuple[str, ...]:
        """The dense models among them."""
        return tuple(one for one in self.retrievers if one not in ("bm25", "bm25q"))


class AnnotateConfig(Decoding, frozen=True, kw_only=True):
    """How relevance is judged: the release's decoding, which asks once."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    max_tokens: int = 2048
    thinking: bool | Literal["default"] = False
    samples: int = 1  # release; how often each pair is judged
    aggregate: Literal["majority", "mean"] = "majority"  # of several samples; see `grades.aggregate`
    stop_after_irrelevant: int = 0  # grades of 1 or 2 in a row, by rank, after which a query's others are left; 0: none

    def __post_init__(self) -> None:
        Decoding.__post_init__(self)
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}; it must be at least 1.")
        if self.stop_after_irrelevant < 0:
            raise ValueError(
                f"stop_after_irrelevant is {self.stop_after_irrelevant}; it must be at least 1, or 0 to judge all."
            )
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples is {self.samples} at temperature 0, where all are the same answer, paid for again. "
                f"Set samples to 1, or the temperature above 0."
            )

    @property
    def deciding(self) -> dict[str, object]:
        """What decides the labels, for the manifest; keys of what is not made use of are left out."""
        table: dict[str, object] = msgspec.to_builtins(self)
        unused = ["samples", "aggregate"] if self.samples == 1 else []
        unused += [] if self.stop_after_irrelevant else ["stop_after_irrelevant"]
        return {key: value for key, value in table.items() if key not in unused}


class AssembleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What counts as a positive."""

    positive_grade: int = 3  # paper: grades 3, 4, 5 are positives, 1 and 2 negatives

    def __post_init__(self) -> None:
        if not 2 <= self.positive_grade <= 5:
            raise ValueError(f"positive_grade is {self.positive_grade}; it must lie between 2 and 5.")


class SynthesisConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that decides the data, given corpus, domain and models."""

    seed: int = 0
    limit: int = 0  # only so many sources; 0: all that were sampled
    holdout: float = 0.0  # share of the sources set aside as a test set; 0: none
    license: str = "unknown"  # of the released data, for its card: an identifier of the hub, e.g. cc-by-4.0
    corpus: Reading = Reading()
    select: SelectConfig = SelectConfig()
    generate: GenerateConfig = GenerateConfig()
    reason: ReasonConfig = ReasonConfig()
    mine: MineConfig = MineConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    assemble: AssembleConfig = AssembleConfig()

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"limit is {self.limit}; it must be at least 1, or 0 for no limit.")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; it is a share: at least 0 and below 1, e.g. 0.1.")
        if not _LICENSE.fullmatch(self.license):
            raise ValueError(
                f'license is "{self.license}"; give an identifier of the hub in lower case, e.g. cc-by-4.0, or unknown.'
            )
