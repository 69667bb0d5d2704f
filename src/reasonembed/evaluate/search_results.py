"""The JSON search results of the authors' release, in and out: one file a data set, query by query."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from reasonembed.errors import InputError, shown
from reasonembed.files import open_binary, write_json
from reasonembed.records import Run
from reasonembed.search.ranking import best_first

NO_RERANKER = "NoReranker"
ORIGINAL = "examples"
"""What the release calls the original queries: BRIGHT's config of that name."""


class SearchResults(msgspec.Struct, frozen=True):
    """One run on one data set, with the release's own field names.

    In the file each query id carries the split before it: `examples-17`; here `run()` has it bare.
    """

    eval_name: str
    model_name: str
    reranker_name: str
    split: str
    dataset_name: str
    search_results: dict[str, dict[str, float]]

    def run(self) -> Run:
        """query_id -> doc_id -> score, without the split before the ids, if all of them have it."""
        before = f"{self.split}-"
        if all(name.startswith(before) for name in self.search_results):
            return {name.removeprefix(before): scores for name, scores in self.search_results.items()}
        return self.search_results


def read_search_results(path: Path | str) -> SearchResults:
    """The file's content. Raises InputError naming the file, and the place in it, for what is not of that form."""
    path = Path(path)
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        read = msgspec.json.decode(raw, type=SearchResults)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}: {error}. Expected {{{', '.join(SearchResults.__struct_fields__)}}}, the last as "
            f"{{query id: {{document id: score}}}}."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        nan = next((word for word in (b"NaN", b"Infinity") if word in raw), b"").decode()
        cure = f"It holds {nan}, which is no JSON and no score: drop those documents." if nan else "Write it anew."
        raise InputError(f"{path}: broken JSON ({error}). {cure}") from error
    mixed = sum(name.startswith(f"{read.split}-") for name in read.search_results)
    if 0 < mixed < len(read.search_results):
        raise InputError(
            f"{path}: {mixed} of {len(read.search_results)} query ids begin with the split, "
            f"{shown(read.split + '-')}; all must, or none. Write the file anew."
        )
    return read


def write_search_results(
    path: Path | str,
    run: Run,
    *,
    model_name: str,
    dataset_name: str,
    queries: str = "original",
    eval_name: str = "reasonembed",
    reranker_name: str = NO_RERANKER,
) -> None:
    """Write `run` (of the wording `queries`), best first, as the release does; any id can stand in it.

    Raises InputError for a score that is no finite number.
    """
    split = ORIGINAL if queries == "original" else queries
    results: dict[str, dict[str, float]] = {}
    for query_id, scores in run.items():
        for doc_id, score in scores.items():
            if not math.isfinite(score):
                raise InputError(f"query {shown(query_id)}, document {shown(doc_id)}: score {score} is not finite.")
        results[f"{split}-{query_id}"] = {doc_id: float(scores[doc_id]) for doc_id in best_first(scores)}
    write_json(Path(path), SearchResults(eval_name, model_name, reranker_name, split, dataset_name, results))
