"""`reasonembed demo`: the whole pipeline on the bundled collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    full: Annotated[
        bool,
        typer.Option("--full", help="Add the paper's ablation (source documents as positives), three seeds each."),
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Train again what is trained already.")] = False,
) -> None:
    """Run the whole of ReasonEmbed on the bundled pocket collection: offline, no key, two CPU cores, minutes.

    Prints a table of systems and the path of an HTML report. A second run finds its work done.

    Example: reasonembed demo
    """
    from reasonembed.cli.systems import need_training
    from reasonembed.evaluate.facts import duration
    from reasonembed.evaluate.report import text_table

    need_training()
    from reasonembed.workflow.demo import run_demo

    result = run_demo(out, full=full, restart=restart)
    typer.echo(text_table(result.judgment.results, per_domain=True))
    typer.echo(f"\n{next(iter(result.judgment.protocols.values())).splitlines()[0]}")
    typer.echo(f"\nresults  {result.results_path}\nmodels   {result.folder / 'models'}")
    typer.echo(f"report   {result.report_path}   ({duration(result.seconds)})")
