"""`reasonembed stats`: a workspace in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def stats(
    workspace: Annotated[Path, typer.Argument(help="A folder that `synthesize` fills or filled, e.g. runs/trial.")],
    domain: Annotated[
        list[str] | None, typer.Option("--domain", "-d", help="Default: all of the workspace; may repeat.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Measure at most so many documents and examples of a domain; 0: all.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    prices: Annotated[
        Path | None, typer.Option(help="TOML with prices per million tokens; they go before the shipped ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write statistics.json and statistics.html there.")
    ] = None,
) -> None:
    """Print what each stage kept and dropped, lengths, grades, positives and negatives, lexical overlap, spend.

    Example: reasonembed stats runs/trial -o statistics
    """
    import time

    from reasonembed.analyze.statistics_sections import text_lines
    from reasonembed.llm.prices import load_prices
    from reasonembed.workflow.statistics import REPORT_FILE, RESULTS_FILE, measure_statistics, write_statistics

    started = time.monotonic()
    found = measure_statistics(
        workspace, domains=domain or (), sample=sample or None, seed=seed, prices=load_prices(prices)
    )
    typer.echo("\n".join(text_lines(found)))
    if out:
        write_statistics(out, found, title=f"Statistics of {workspace.name}", seconds=time.monotonic() - started)
        typer.echo(f"\nresults  {out / RESULTS_FILE}\nreport   {out / REPORT_FILE}")
