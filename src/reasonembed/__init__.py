"""A corpus and any language model in, a retriever that reasons out.

    import reasonembed

    reasonembed.synthesize("docs.jsonl", workspace="runs/docs", model="http://localhost:8000/v1")
    reasonembed.train("runs/docs", base="Qwen/Qwen3-0.6B", out="models/docs")

Importing this package loads no torch; each public name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Candidate": "records",
    "Document": "records",
    "Example": "records",
    "Label": "records",
    "Query": "records",
    "Corpus": "corpora",
    "read_corpus": "corpora",
    "Collection": "beir",
    "read_beir": "beir",
    "write_beir": "beir",
    "Domain": "domains",
    "load_domain": "domains",
    "ReasonEmbedError": "errors",
    "UserError": "errors",
    "Encoder": "encoder.model",
    "SynthesisConfig": "remixer.config",
    "TrainConfig": "redapter.config",
    "load_recipe": "redapter.recipe",
    "RiInfoNceLoss": "redapter.sentence_transformers_loss",
    "Bm25System": "search.systems",
    "DenseSystem": "search.systems",
    "search_corpus": "search.engine",
    "judge": "workflow.judging",
    "load_collections": "evaluate.benchmarks",
    "results_table": "evaluate.run",
    "ScriptedBackend": "llm.scripted",
    "open_door": "llm.door",
    "Models": "workflow.synthesis",
    "synthesize": "workflow.synthesis",
    "train": "workflow.training",
    "run_demo": "workflow.demo",
}

__all__ = [
    "Bm25System",
    "Candidate",
    "Collection",
    "Corpus",
    "DenseSystem",
    "Document",
    "Domain",
    "Encoder",
    "Example",
    "Label",
    "Models",
    "Query",
    "ReasonEmbedError",
    "RiInfoNceLoss",
    "ScriptedBackend",
    "SynthesisConfig",
    "TrainConfig",
    "UserError",
    "__version__",
    "judge",
    "load_collections",
    "load_domain",
    "load_recipe",
    "open_door",
    "read_beir",
    "read_corpus",
    "results_table",
    "run_demo",
    "search_corpus",
    "synthesize",
    "train",
    "write_beir",
]

if TYPE_CHECKING:
    from reasonembed.beir import Collection, read_beir, write_beir
    from reasonembed.corpora import Corpus, read_corpus
    from reasonembed.domains import Domain, load_domain
    from reasonembed.encoder.model import Encoder
    from reasonembed.errors import ReasonEmbedError, UserError
    from reasonembed.evaluate.benchmarks import load_collections
    from reasonembed.evaluate.run import results_table
    from reasonembed.llm.door import open_door
    from reasonembed.llm.scripted import ScriptedBackend
    from reasonembed.records import Candidate, Document, Example, Label, Query
    from reasonembed.redapter.config import TrainConfig
    from reasonembed.redapter.recipe import load_recipe
    from reasonembed.redapter.sentence_transformers_loss import RiInfoNceLoss
    from reasonembed.remixer.config import SynthesisConfig
    from reasonembed.search.engine import search_corpus
    from reasonembed.search.systems import Bm25System, DenseSystem
    from reasonembed.workflow.demo import run_demo
    from reasonembed.workflow.judging import judge
    from reasonembed.workflow.synthesis import Models, synthesize
    from reasonembed.workflow.training import train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
