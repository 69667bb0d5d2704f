"""`reasonembed evaluate`: scores, each with its protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    benchmark: Annotated[
        list[str],
        typer.Option(
            "--benchmark",
            "-B",
            help="bright, bright-long, r2med (from the hub, or bright:FOLDER), a BEIR folder, a folder of them, or "
            "pocket; may repeat.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model folder or name, minilm, or http://HOST/v1#MODEL; may repeat."),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Add bag-of-words BM25.")] = False,
    bm25q: Annotated[bool, typer.Option("--bm25q", help="Add query-side BM25, BRIGHT's baseline.")] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="A TREC run, JSON search results, or a folder of either, one a domain; may repeat."),
    ] = None,
    systems: Annotated[
        Path | None, typer.Option(help="A TOML file of systems: hybrids, summed wordings, reranking.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Before every query; 'none' for bare queries, 'own' for the prompts that the model declares. Default: "
            "the benchmark's, one a domain, where it has them (bright, bright-long, r2med), else 'own'."
        ),
    ] = None,
    queries: Annotated[
        str, typer.Option(help="original, reasoning (each query's reasoning_query), or rewrites: gpt4_reason.")
    ] = "original",
    rewrites: Annotated[
        list[Path] | None, typer.Option(help="A file of `reasonembed rewrite`; its stem names the wording; may repeat.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="e.g. nDCG@10, Recall@100, MAP, MRR; may repeat. Default: the benchmark's own."),
    ] = None,
    domains: Annotated[str | None, typer.Option(help="Only these, separated by commas: biology,pony.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the benchmark on the hub; default: the newest.")] = None,
    base: Annotated[str | None, typer.Option(help="The system to compare with; default: the first.")] = None,
    split: Annotated[str, typer.Option(help="Which qrels: qrels/SPLIT.tsv.")] = "test",
    language: Annotated[str, typer.Option(help="Of the BM25 analyser.")] = "en",
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest text; default: the benchmark's limit, else the model's own.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16.")] = "float32",
    devices: Annotated[
        str | None,
        typer.Option(help="Encode on these, a process each: cuda:0,cuda:1, or cpu,cpu. Default: one device."),
    ] = None,
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

    from reasonembed.cli.output import evaluation_lines
    from reasonembed.cli.systems import named_systems
    from reasonembed.evaluate.benchmarks import open_benchmark, together
    from reasonembed.workflow.judging import judge, plain_report, write_judgment
    from reasonembed.workflow.rewriting import with_rewrites

    started = time.monotonic()
    chosen = domains.split(",") if domains else None
    judged_on = together([open_benchmark(word, split=split, domains=chosen, revision=revision) for word in benchmark])
    collections = with_rewrites(judged_on.load(), rewrites or [])
    named = named_systems(
        models=model or [],
        bm25=bm25,
        bm25q=bm25q,
        runs=run or [],
        instruction=instruction,
        instructions=judged_on.instructions,
        language=language,
        max_tokens=max_tokens,
        longest=judged_on.max_tokens,
        dtype=dtype,
        devices=devices.split(",") if devices else (),
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
        measures=measure or judged_on.measures,
        queries=queries,
        benchmark=judged_on.name,
    )
    typer.echo("\n".join(evaluation_lines(judgment)))
    if out:
        title = f"Evaluation on {', '.join(Path(name).name for name in benchmark)}"
        report = plain_report(judgment, title=title, seconds=time.monotonic() - started)
        write_judgment(out, judgment, report)
        typer.echo(f"\nresults  {out / 'results.json'}\nreport   {out / 'report.html'}")
