"""`reasonembed search`: a corpus, a model or BM25, a query: ranked documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def search(
    corpus: Annotated[
        Path, typer.Argument(help="A BEIR folder, .jsonl (.gz, .zst), .parquet, or a folder of .txt/.md.")
    ],
    query: Annotated[list[str], typer.Argument(help="What to look for; several queries share one index.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model folder or name, minilm, or http://HOST/v1#MODEL; default: BM25."),
    ] = None,
    bm25: Annotated[str, typer.Option(help="Without a model: bag (of words) or query(-side).")] = "query",
    domain: Annotated[str, typer.Option("--domain", "-d", help="Picks the prompt among the model's.")] = "",
    instruction: Annotated[str | None, typer.Option(help="Before the query; 'none' for a bare query.")] = None,
    language: Annotated[str, typer.Option(help="Of the BM25 analyser.")] = "en",
    api_key_env: Annotated[str, typer.Option(help="NAME of the variable with the endpoint's key.")] = "",
    cache: Annotated[Path | None, typer.Option(help="Keep the vectors of the documents there.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents.")] = 10,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all fields.")] = False,
) -> None:
    """Rank the documents of a corpus for a query, exactly.

    Example: reasonembed search docs.jsonl "Why do my tomatoes split after rain?" --model models/trial
    """
    import msgspec

    from reasonembed.cli.systems import dense_system
    from reasonembed.corpora import read_corpus
    from reasonembed.search.engine import search_corpus
    from reasonembed.workflow.judging import bm25 as bm25_system

    make = bm25_system(bm25, language=language)
    if model:
        make = dense_system(model, instruction=instruction, api_key_env=api_key_env, cache=cache)
    hits_of_queries = search_corpus(read_corpus(corpus), query, system=make(), k=k, domain=domain)
    for text, hits in zip(query, hits_of_queries, strict=True):
        if json_lines:
            for hit in hits:
                typer.echo(msgspec.json.encode({"query": text, **msgspec.structs.asdict(hit)}).decode())
            continue
        if len(query) > 1:
            typer.echo(f"# {text}")
        for hit in hits:
            typer.echo(f"{hit.rank:>3}  {hit.score:8.4f}  {hit.doc_id}  {hit.title or hit.snippet}")
        if not hits:
            typer.echo("no document shares a word with the query")
