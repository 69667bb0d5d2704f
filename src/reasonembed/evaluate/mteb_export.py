"""Our scores as files that `mteb` reads: its layout and task names, our protocol and data, which each file states."""

from __future__ import annotations

from typing import Any

from reasonembed.evaluate.bright import LONG_DOMAINS
from reasonembed.evaluate.published import benchmark_name, known_domain, published_tables
from reasonembed.evaluate.run import Evaluation

_MAIN_SCORES = {"bright": "nDCG@10", "bright-long": "Recall@1", "r2med": "nDCG@10"}
_SPLITS = {"bright": "standard", "bright-long": "long", "r2med": "test"}


def task_name(benchmark: str, domain: str) -> str | None:
    """mteb's task for a domain of `bright`, `bright-long` or `r2med`; None if it has none."""
    tables = published_tables()
    if benchmark == "r2med":
        known = known_domain(domain, tables.r2med.domains)
        return f"R2MED{known.replace('-', '')}Retrieval" if known else None
    known = known_domain(domain, LONG_DOMAINS if benchmark == "bright-long" else tables.bright.domains)
    if benchmark not in _SPLITS or known is None:
        return None
    words = "".join(word.capitalize() for word in known.split("_")).replace("Theoremqa", "TheoremQA")
    return f"Bright{words}{'Long' if benchmark == 'bright-long' else ''}Retrieval"


def task_results(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One result for each domain, as `mteb.results.TaskResult` reads it.

    Domains of BRIGHT and R2MED bear the names of mteb's tasks, others their own. Instruction, length and copy of the
    data are ours, not mteb's, so the scores are not those that mteb would measure: `mteb_version` is null, the revision
    is the hash of the data that was judged on, and `protocol` stands beside the scores. A known task whose main score
    was not measured is left out.
    """
    benchmark = benchmark_name(evaluation.protocol.benchmark)
    results = []
    for domain in evaluation.runs:
        name = task_name(benchmark, domain)
        main = _MAIN_SCORES[benchmark] if name else next(iter(evaluation.per_domain))
        if main in evaluation.per_domain:
            results.append(_task_result(evaluation, domain, name, main=main, split=_SPLITS.get(benchmark, "test")))
    return results


def _task_result(evaluation: Evaluation, domain: str, name: str | None, *, main: str, split: str) -> dict[str, Any]:
    scores: dict[str, Any] = {_spelled(measure): means[domain] for measure, means in evaluation.per_domain.items()}
    scores |= {
        "main_score": evaluation.per_domain[main][domain],
        "hf_subset": "default",
        "languages": ["eng-Latn"] if name else [],
        "protocol": f"judged by reasonembed, not by mteb\n{evaluation.protocol}",
    }
    return {
        "dataset_revision": f"reasonembed:{evaluation.protocol.revision[:12]}",
        "task_name": name or domain,
        "mteb_version": None,
        "scores": {split: [scores]},
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }


def _spelled(measure: str) -> str:
    """`nDCG@10` in mteb's spelling: `ndcg_at_10`."""
    return measure.lower().replace("@", "_at_")
