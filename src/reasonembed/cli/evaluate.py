"""`reasonembed evaluate`: scores, each with its protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    benchmark: Annotated[
        list[str],
        typer.Option("--benchmark", "-B", help="A BEIR folder, a folder of them, or pocket; may repeat."),
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model folder or name, or minilm; may repeat.")
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Add bag-of-words BM25.")] = False,
    bm25q: Annotated[bool, typer.Option("--bm25q", help="Add query-side BM25, BRIGHT's baseline.")] = False,
    run: Annotated[list[Path] | None, typer.Option(help="A TREC run file to score; may repeat.")] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="Before every query; 'none' for bare queries. Default: the prompts that the model declares."),
    ] = None,
    queries: Annotated[str, typer.Option(help="original, or reasoning: each query's reasoning_query.")] = "original",
    measure: Annotated[list[str] | None, typer.Option(help="e.g. nDCG@10, Recall@100; may repeat.")] = None,
    base: Annotated[str | None, typer.Option(help="The system to compare with; default: the first.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels: qrels/SPLIT.tsv.")] = "test",
    language: Annotated[str, typer.Option(help="Of the BM25 analyser.")] = "en",
    max_tokens: Annotated[int | None, typer.Option(help="Longest text; default: the model's own limit.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16.")] = "float32",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write results.json, TREC runs, report.html there.")
    ] = None,
) -> None:
    """Rank with exact search, exclusions before the cut, and score by trec_eval's definitions, with intervals.

    Example: reasonembed evaluate --benchmark pocket --bm25q --model minilm --instruction none
    """
    import time

    from reasonembed.cli.output import evaluation_lines, named_systems
    from reasonembed.evaluate.metrics import MEASURES
    from reasonembed.workflow.judging import collections_under, judge, plain_report, write_judgment

    started = time.monotonic()
    systems = named_systems(
        models=model or [],
        bm25=bm25,
        bm25q=bm25q,
        runs=run or [],
        instruction=instruction,
        language=language,
        max_tokens=max_tokens,
        dtype=dtype,
        base=base,
    )
    collections = collections_under(benchmark, split=split)
    judgment = judge(
        systems,
        collections,
        base=(base or next(iter(systems))) if len(systems) > 1 else None,
        measures=measure or MEASURES,
        queries=queries,
        benchmark=", ".join(benchmark),
    )
    typer.echo("\n".join(evaluation_lines(judgment)))
    if out:
        title = f"Evaluation on {', '.join(Path(name).name for name in benchmark)}"
        report = plain_report(judgment, title=title, seconds=time.monotonic() - started)
        write_judgment(out, judgment, report)
        typer.echo(f"\nresults  {out / 'results.json'}\nreport   {out / 'report.html'}")
