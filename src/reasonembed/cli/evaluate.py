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
        list[str] | None,
        typer.Option("--model", "-m", help="A model folder or name, minilm, or http://HOST/v1#MODEL; may repeat."),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Add bag-of-words BM25.")] = False,
    bm25q: Annotated[bool, typer.Option("--bm25q", help="Add query-side BM25, BRIGHT's baseline.")] = False,
    run: Annotated[list[Path] | None, typer.Option(help="A TREC run file to score; may repeat.")] = None,
    systems: Annotated[
        Path | None, typer.Option(help="A TOML file of systems: hybrids, summed wordings, reranking.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="Before every query; 'none' for bare queries. Default: the prompts that the model declares."),
    ] = None,
    queries: Annotated[str, typer.Option(help="original, or reasoning: each query's reasoning_query.")] = "original",
    rewrites: Annotated[
        list[Path] | None, typer.Option(help="A file of `reasonembed rewrite`; its stem names the wording; may repeat.")
    ] = None,
    measure: Annotated[list[str] | None, typer.Option(help="e.g. nDCG@10, Recall@100; may repeat.")] = None,
    base: Annotated[str | None, typer.Option(help="The system to compare with; default: the first.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels: qrels/SPLIT.tsv.")] = "test",
    language: Annotated[str, typer.Option(help="Of the BM25 analyser.")] = "en",
    max_tokens: Annotated[int | None, typer.Option(help="Longest text; default: the model's own limit.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16.")] = "float32",
    api_key_env: Annotated[str, typer.Option(help="NAME of the variable with the key of --model's endpoint.")] = "",
    cache: Annotated[
        Path | None, typer.Option(help="Keep vectors of documents and replies there; default: OUT/cache.")
    ] = None,
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
    from reasonembed.workflow.rewriting import with_rewrites

    started = time.monotonic()
    collections = with_rewrites(collections_under(benchmark, split=split), rewrites or [])
    named = named_systems(
        models=model or [],
        bm25=bm25,
        bm25q=bm25q,
        runs=run or [],
        instruction=instruction,
        language=language,
        max_tokens=max_tokens,
        dtype=dtype,
        base=base,
        file=systems,
        collections=collections,
        api_key_env=api_key_env,
        cache=cache or (out / "cache" if out else None),
    )
    judgment = judge(
        named,
        collections,
        base=(base or next(iter(named))) if len(named) > 1 else None,
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
