"""`reasonembed journal`: what a workspace's replies came to, whether they are whole, and all of them as JSONL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reasonembed.llm.journal_export import JournalCheck
    from reasonembed.llm.journal_report import JournalReport, StageLine

_SHOWN = 20  # damaged replies named on a terminal; --json names all


def journal(
    workspace: Annotated[Path, typer.Argument(help="A folder that `synthesize` filled, or a journal's file.")],
    export: Annotated[
        Path | None,
        typer.Option("--export", "-e", help="Write all replies there instead, one JSON object a line; .gz, .zst too."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Verify every page and every reply instead; exit code 1 if any is damaged.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="TOML with prices per million tokens; they go before the shipped ones.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what the language models answered: replies, failures by reason, tokens and spend by stage and model.

    It only reads, and may run while another process fills the journal.

    Example: reasonembed journal runs/trial --export replies.jsonl.zst
    """
    import msgspec

    from reasonembed.errors import ConfigError, DamageError
    from reasonembed.llm.journal_export import check_journal, export_journal
    from reasonembed.llm.journal_report import journal_path, report_journal
    from reasonembed.llm.prices import load_prices

    def tell(result: object, lines: Iterator[str]) -> None:
        typer.echo(msgspec.json.format(msgspec.json.encode(result)).decode() if json else "\n".join(lines))

    path = journal_path(workspace)
    if check and export:
        raise ConfigError("--check and --export are two jobs. Give one, then the other.")
    if check:
        found = check_journal(path)
        tell(found, check_lines(found))
        if not found.whole:
            raise DamageError(f"the journal {path} is damaged; see above. Replies that are not named are whole.")
    elif export:
        written = export_journal(path, export)
        tell(written, iter([f"{written.replies:,} replies\n{export}"]))
        if written.damaged:
            raise DamageError(
                f"{written.damaged:,} of the replies in {path} are damaged: their lines in {export} say why, under "
                f'"damage". The others are whole.'
            )
    else:
        report = report_journal(path, load_prices(prices))
        tell(report, report_lines(report))


def report_lines(report: JournalReport) -> Iterator[str]:
    """The report for a person: totals, then a table by stage and model, then what its figures leave open."""
    failed = sum(report.failures.values())
    yield f"journal   {report.path} (schema version {report.schema_version})"
    yield f"replies   {report.replies:,}: {report.replies - failed:,} usable, {failed:,} failed"
    if failed:
        yield f"failures  {_counts(report.failures)}"
    if report.first_answered_at:
        yield f"answered  {report.first_answered_at} to {report.last_answered_at}"
    if not report.stages:
        return
    width = max(len("model"), *(len(_model(line)) for line in report.stages))
    yield ""
    head = f"{'stage':<10} {'model':<{width}} {'replies':>11} {'failed':>9} {'calls':>11}"
    yield f"{head} {'tokens in':>15} {'tokens out':>14} {'cost':>12}"
    for line in report.stages:
        start = f"{line.stage:<10} {_model(line):<{width}} {line.replies:>11,} {sum(line.failures.values()):>9,}"
        cost = "unknown" if line.cost is None else f"{line.cost:,.2f}"
        yield f"{start} {line.calls:>11,} {line.prompt_tokens:>15,} {line.completion_tokens:>14,} {cost:>12}"
    yield _total(report, width)
    yield from _notes(report)


def _total(report: JournalReport, width: int) -> str:
    calls, read, written = (
        sum(getattr(line, name) for line in report.stages) for name in ("calls", "prompt_tokens", "completion_tokens")
    )
    cost = "unknown" if all(line.cost is None for line in report.stages) else f"{report.cost:,.2f}"
    start = f"{'in all':<10} {'':<{width}} {report.replies:>11,} {sum(report.failures.values()):>9,}"
    return f"{start} {calls:>11,} {read:>15,} {written:>14,} {cost:>12}"


def _notes(report: JournalReport) -> Iterator[str]:
    for line in report.stages:
        if line.failures:
            yield f"failed: {line.stage}, {_model(line)}: {_counts(line.failures)}"
    unpriced = [model for model in report.unpriced if model]
    for model in unpriced:
        yield f"cost: no price is known for {model}; give one with --prices FILE if it costs anything"
    if "" in report.unpriced:
        yield "cost: unknown where older releases did not record the model"
    if len(report.unpriced) < len({line.model for line in report.stages}):
        rest = ", of the models with a price only" if report.unpriced else ""
        yield f"cost: in {report.currency}{rest}; calls and tokens are all that were ever paid for"


def check_lines(found: JournalCheck) -> Iterator[str]:
    """What the check found, for a person: at most twenty damaged replies, each with its key."""
    yield f"{found.path}: {found.replies:,} replies read, {len(found.damaged):,} damaged"
    for finding in found.structure:
        yield f"file: {finding}"
    for reply in found.damaged[:_SHOWN]:
        yield f"reply {reply.number}  key {reply.key}  {reply.custom_id}: {reply.problem}"
    if len(found.damaged) > _SHOWN:
        yield f"... and {len(found.damaged) - _SHOWN:,} more damaged replies; --json names all"
    if found.whole:
        yield "whole: SQLite's integrity check and every reply's checksum agree"


def _model(line: StageLine) -> str:
    return line.model or "(not recorded)"


def _counts(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in failures.items())
