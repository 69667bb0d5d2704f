"""`reasonembed synthesize`: training data from a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    corpus: Annotated[
        Path, typer.Argument(help="A BEIR folder, .jsonl (.gz, .zst), .parquet, or a folder of .txt/.md.")
    ],
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Where everything is kept, e.g. runs/law.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="http://HOST:PORT/v1[#MODEL], openai:MODEL, azure:DEPLOYMENT, batch:ENDPOINT, local:MODEL, "
            "recorded:pocket, recorded:FOLDER, scripted.",
        ),
    ],
    domain: Annotated[str, typer.Option("--domain", "-d", help="A shipped domain or your TOML file.")] = "general",
    reasoner: Annotated[str, typer.Option(help="Another model for the reasoning queries.")] = "",
    annotator: Annotated[str, typer.Option(help="Another model for the grades.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="TOML with the keys of SynthesisConfig; flags override it.")
    ] = None,
    retriever: Annotated[str | None, typer.Option(help="bm25q, bm25, dense, fused or pooled.")] = None,
    retriever_model: Annotated[str | None, typer.Option(help="For dense and fused: a model folder or name.")] = None,
    chunk_chars: Annotated[
        int | None, typer.Option(help="Cut .txt/.md files into pieces of at most so many characters, e.g. 2000.")
    ] = None,
    merge_duplicates: Annotated[
        bool | None, typer.Option("--merge-duplicates", help="Keep only the first of documents with the same text.")
    ] = None,
    pool: Annotated[list[str] | None, typer.Option(help="For pooled: bm25, bm25q or a model; repeat.")] = None,
    sources: Annotated[
        Path | None, typer.Option(help="The only documents to write queries from: ids, one a line.")
    ] = None,
    sources_per_query: Annotated[
        int | None,
        typer.Option(help="Write each query from so many documents that belong together, 1 to 5."),
    ] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="A collection whose judged documents must not be sources; may repeat."),
    ] = None,
    holdout: Annotated[float | None, typer.Option(help="Share of the sources set aside to judge by, e.g. 0.1.")] = None,
    license: Annotated[
        str | None, typer.Option(help="Of the released data, for its card: an identifier of the hub, e.g. cc-by-4.0.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many sources: a trial before paying for more.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides sampling.")] = None,
    domain_check: Annotated[
        bool | None,
        typer.Option("--domain-check/--no-domain-check", help="Ask whether documents fit the domain."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Stop when the workspace has spent so much in all, earlier runs included.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(help="The same for calls; may be raised later.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The same for tokens, read and written.")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="TOML with prices per million tokens; they go before the shipped ones.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="HTTP requests in flight at once.")] = None,
    api_key_env: Annotated[str, typer.Option(help="NAME of the environment variable with the key.")] = "",
    stop_after: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    restart_from: Annotated[
        str | None, typer.Option(help="Redo this stage and those after it; replies are kept.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: calls, tokens and cost per stage; do nothing.")
    ] = False,
) -> None:
    """Write queries from documents, think them through, mine candidates without the source, grade, assemble, release.

    Interrupted or repeated, the same command goes on where it stopped and pays for no reply twice.

    Example: reasonembed synthesize docs.jsonl -w runs/trial -m http://localhost:8000/v1 --limit 20 --holdout 0.1
    """
    from reasonembed.config import load_toml, override
    from reasonembed.llm.budget import Budget
    from reasonembed.llm.endpoint import ClientConfig
    from reasonembed.llm.prices import load_prices
    from reasonembed.remixer.config import SynthesisConfig
    from reasonembed.workflow.synthesis import Models, plan_synthesis
    from reasonembed.workflow.synthesis import synthesize as run

    flags: dict[str, object] = {
        "holdout": holdout,
        "limit": limit,
        "license": license,
        "seed": seed,
        "corpus.chunk_chars": chunk_chars,
        "corpus.merge_duplicates": merge_duplicates,
        "select.domain_check": domain_check,
        "select.sources_per_query": sources_per_query,
        "mine.retriever": retriever,
        "mine.model": retriever_model,
        "mine.pool": pool or None,
    }
    settings = load_toml(config, SynthesisConfig) if config else SynthesisConfig()
    settings = override(settings, flags)
    client = ClientConfig(api_key_env=api_key_env)
    client = override(client, {"concurrency": concurrency})
    price_list = load_prices(prices)
    common = {
        "domain": domain,
        "workspace": workspace,
        "model": Models(model, reasoner, annotator),
        "config": settings,
        "sources": sources,
        "benchmarks": benchmark or [],
        "client": client,
        "prices": price_list,
    }
    if dry_run:
        from reasonembed.cli.output import plan_lines

        typer.echo("\n".join(plan_lines(plan_synthesis(corpus, **common), price_list)))  # type: ignore[arg-type]
        return
    from reasonembed.cli.output import synthesis_lines

    limits = override(Budget(), {"max_cost": max_cost, "max_calls": max_calls, "max_tokens": max_tokens})
    report = run(corpus, **common, budget=limits, stop_after=stop_after, restart_from=restart_from)  # type: ignore[arg-type]
    typer.echo("\n".join(synthesis_lines(report, workspace, price_list.currency)))
