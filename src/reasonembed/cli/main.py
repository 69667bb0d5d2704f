"""`reasonembed`: one typed command line from a corpus to a report. Each command lives in a file of its own."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from reasonembed import __version__
from reasonembed.cli import (
    analyze,
    demo,
    doctor,
    domains,
    evaluate,
    journal,
    push,
    reproduce,
    rewrite,
    score,
    search,
    show,
    stats,
    synthesize,
    train,
)
from reasonembed.errors import ReasonEmbedError
from reasonembed.processes import is_first

app = typer.Typer(
    name="reasonembed",
    help="Turns a corpus and any language model into a retriever that reasons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("synthesize")(synthesize.synthesize)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(score.score)
app.command("reproduce")(reproduce.reproduce)
app.command("rewrite")(rewrite.rewrite)
app.command("search")(search.search)
app.command("show")(show.show)
app.command("journal")(journal.journal)
app.command("stats")(stats.stats)
app.command("push")(push.push)
app.add_typer(domains.app, name="domains")
app.add_typer(analyze.app, name="analyze")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reasonembed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every detail to stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    if not is_first():  # what it has to say the first process says too, but for what went wrong
        level = max(level, logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("reasonembed")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def main() -> None:
    """Run the command line; errors of ours end as one sentence on stderr and their exit code, without a traceback."""
    try:
        app()
    except ReasonEmbedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == 130:
            print("stopped. What was finished is kept: the same command goes on from here.", file=sys.stderr)
        raise
