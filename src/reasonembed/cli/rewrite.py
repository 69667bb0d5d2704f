"""`reasonembed rewrite`: a benchmark's queries thought through by a language model, to search with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rewrite(
    benchmark: Annotated[
        list[str],
        typer.Option("--benchmark", "-B", help="As for evaluate; may repeat."),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="http://HOST:PORT/v1[#MODEL], openai:MODEL, azure:DEPLOYMENT, batch:ENDPOINT, local:MODEL, "
            "recorded:FOLDER, scripted.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file, e.g. rewrites.jsonl; its stem names the wording.")
    ],
    domain: Annotated[
        str, typer.Option("--domain", "-d", help="Whose words the prompt uses; default: the benchmark's, else general.")
    ] = "",
    split: Annotated[str, typer.Option(help="Which qrels: qrels/SPLIT.tsv.")] = "test",
    temperature: Annotated[float | None, typer.Option(help="Of the decoding.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, thinking included.")] = None,
    seed: Annotated[int, typer.Option(help="Decides sampling, where the endpoint honours it.")] = 0,
    concurrency: Annotated[int, typer.Option(help="HTTP requests in flight at once.")] = 32,
    api_key_env: Annotated[str, typer.Option(help="NAME of the environment variable with the key.")] = "",
    journal: Annotated[
        Path | None, typer.Option(help="Where replies are kept; default: beside OUT, as NAME.journal.sqlite.")
    ] = None,
) -> None:
    """Write another wording of each query; repeated, the command pays for no reply twice.

    Example: reasonembed rewrite --benchmark bright/biology --model http://localhost:8000/v1 -o thought.jsonl
    """
    from reasonembed.config import override
    from reasonembed.llm.door import open_door
    from reasonembed.llm.endpoint import ClientConfig
    from reasonembed.remixer.config import ReasonConfig
    from reasonembed.workflow.judging import collections_under
    from reasonembed.workflow.rewriting import rewrite_queries

    collections = collections_under(benchmark, split=split)
    config = override(ReasonConfig(), {"temperature": temperature, "max_tokens": max_tokens})
    client = ClientConfig(api_key_env=api_key_env, concurrency=concurrency)
    kept = journal or out.with_name(f"{out.name.split('.')[0]}.journal.sqlite")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open_door(model, journal_path=kept, client=client) as door:
        report = rewrite_queries(collections, out, door=door, config=config, domain=domain, seed=seed)
    for row in report.dropped:
        typer.echo(f"left out {row.row_id}: {row.reason} {' '.join(row.detail.split())[:200]}", err=True)
    typer.echo(f"{report.written} queries rewritten, {len(report.dropped)} left out\n{out}")
