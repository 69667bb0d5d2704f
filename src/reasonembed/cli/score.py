"""`reasonembed score`: a run against qrels, from two files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def score(
    run: Annotated[Path, typer.Argument(help="A TREC run, or JSON search results.")],
    qrels: Annotated[Path, typer.Argument(help="TREC qrels, or BEIR's tab separated file.")],
    measure: Annotated[
        list[str] | None, typer.Option("--measure", "-M", help="nDCG@10, Recall@100, MAP, MRR, MRR@10; may repeat.")
    ] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="A line for each query and measure first.")] = False,
    seed: Annotated[int, typer.Option(help="Of the confidence intervals.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write all of it as JSON there.")] = None,
) -> None:
    """Score a ranking by trec_eval's definitions: means over the judged queries, with 95 % bootstrap intervals.

    Exclusions are not known here: they must have been removed from the run before its cut.

    Example: reasonembed score run.trec qrels/test.tsv --measure nDCG@10 --per-query
    """
    from reasonembed.cli.output import score_lines
    from reasonembed.evaluate.metrics import MEASURES
    from reasonembed.evaluate.scoring import score_files
    from reasonembed.files import write_json

    scores = score_files(run, qrels, measures=measure or MEASURES, seed=seed)
    typer.echo("\n".join(score_lines(scores, per_query=per_query)))
    if out:
        write_json(out, scores)
