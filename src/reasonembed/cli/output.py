"""How plans and results look on stdout. Pure but for reading dropped rows."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reasonembed.evaluate.reproduction import Recipe
    from reasonembed.evaluate.scoring import FileScores
    from reasonembed.llm.prices import Prices
    from reasonembed.remixer.pipeline import StagePlan, SynthesisReport
    from reasonembed.remixer.show import ShownDocument, ShownExample
    from reasonembed.workflow.judging import Judgment
    from reasonembed.workflow.reproduction import Reproduction
    from reasonembed.workflow.training import DomainPlan, TrainingReport
    from reasonembed.workspace import Workspace

_WIDTH = 110


def plan_lines(plans: Sequence[StagePlan], prices: Prices) -> Iterator[str]:
    """The plan of a synthesis as a table, and what its figures rest on."""
    head = f"{'stage':<10} {'state':<8} {'rows at most':>14} {'calls at most':>14}"
    yield f"{head} {'tokens in':>15} {'tokens out':>14} {'cost':>12}"
    for plan in plans:
        row = f"{plan.stage:<10} {plan.state:<8} {plan.rows:>14,} {plan.calls:>14,} {_cost_columns([plan])}"
        yield f"{row}  {plan.note}".rstrip()
    calls = sum(plan.calls for plan in plans)
    yield f"{'in all':<10} {'':<8} {'':>14} {calls:>14,} {_cost_columns(plans)}  before what the journal holds already"
    yield from _cost_notes(plans, prices)


def _cost_columns(plans: Sequence[StagePlan]) -> str:
    costs = [plan.cost for plan in plans if plan.cost]
    if not costs:
        return f"{'':>15} {'':>14} {'':>12}"
    known = [cost.cost for cost in costs if cost.cost is not None]
    tokens = f"{sum(cost.prompt_tokens for cost in costs):>15,} {sum(cost.completion_tokens for cost in costs):>14,}"
    return f"{tokens} {sum(known):>12,.2f}" if len(known) == len(costs) else f"{tokens} {'unknown':>12}"


def _cost_notes(plans: Sequence[StagePlan], prices: Prices) -> Iterator[str]:
    from reasonembed.remixer.estimate import CHARS_PER_TOKEN

    stages = [(plan.stage, plan.cost, plan.calls) for plan in plans if plan.cost]
    counted = [stage for stage, cost, _ in stages if cost.counted]
    guessed = [stage for stage, cost, _ in stages if not cost.counted]
    if counted:
        yield f"tokens in: {', '.join(counted)}: counted with the model's tokenizer on a sample of prompts"
    if guessed:
        yield f"tokens in: {', '.join(guessed)}: estimated, characters / {CHARS_PER_TOKEN} on a sample of prompts"
    for stage, cost, calls in stages:
        origin = (
            f"mean of {cost.answers_seen:,} replies in the journal" if cost.answers_seen else "assumed, no thinking"
        )
        yield f"tokens out: {stage}: {cost.completion_tokens / calls:,.0f} a call, {origin}"
    for model in dict.fromkeys(cost.model for _, cost, _ in stages if cost.cost is None):
        yield f"cost: no price is known for {model}; give one with --prices FILE if it costs anything"
    if any(cost.cost is not None for _, cost, _ in stages):
        yield f"cost: in {prices.currency}, prices of {prices.as_of or 'your file'}"


def synthesis_lines(report: SynthesisReport, workspace: Path, currency: str) -> Iterator[str]:
    """What synthesis came to, a line a stage, and what to do next."""
    from reasonembed.llm.budget import money
    from reasonembed.manifest import summary

    for result in report.stages:
        yield f"{result.stage:<10} {'' if result.fresh else '(done before) '}{summary(result.manifest)}"
    if (spent := report.spent).asked:
        cost = f", {money(spent.cost, currency)}" if spent.cost else ""
        tokens = f"{spent.prompt_tokens:,} tokens in, {spent.completion_tokens:,} out"
        yield f"spent      {spent.asked:,} calls, {tokens}{cost}, in this run"
    yield f"folder     {report.folder}"
    if report.release_path:
        yield f"data       {report.release_path}"
    if report.holdout_folder:
        yield f"held out   {report.holdout_folder}"
    if report.examples:
        yield f"next       reasonembed show {workspace}   |   reasonembed train {workspace} --base MODEL --out FOLDER"


def training_plan_lines(plans: Sequence[DomainPlan], epochs: int) -> Iterator[str]:
    """The plan of a training as a table."""
    yield f"{'domain':<22} {'examples':>9} {'passages/query':>15} {'queries/step':>13} {'steps/epoch':>12}"
    for plan in plans:
        yield (
            f"{plan.domain:<22} {plan.examples:>9,} {plan.group_size:>15} {plan.global_queries:>13} "
            f"{plan.steps_per_epoch:>12,}"
        )
    steps = sum(plan.steps_per_epoch for plan in plans)
    yield f"{epochs} {'epoch' if epochs == 1 else 'epochs'}, {steps * epochs:,} optimiser steps in all"


def training_lines(report: TrainingReport) -> Iterator[str]:
    """What training came to, and base against trained where queries were held out."""
    totals = report.totals
    yield (
        f"{totals.steps:,} steps in {totals.seconds:.0f} s, {totals.tokens_per_s:,.0f} real tokens/s, "
        f"{100 * totals.padding_share:.1f} % padding"
    )
    if (found := report.validation) is not None:
        early = f", stopped early ({found.planned_steps:,} steps were planned)" if found.stopped_early else ""
        yield (
            f"weights  after step {found.best_step:,}, the best of {found.validations} validations{early}: "
            f"{found.measure} {found.best_score:.4f}, base {found.base_score:.4f}"
        )
    yield f"model    {report.model_folder}\nlog      {report.log_path}"
    if report.judgment is not None:
        yield ""
        yield from evaluation_lines(report.judgment)
        yield f"\nreport   {report.report_path}"
    else:
        yield "No queries were held out (synthesize --holdout 0.1), so the model was not judged."


def evaluation_lines(judgment: Judgment) -> Iterator[str]:
    """The table of scores, and the protocol of each system."""
    from reasonembed.evaluate.tables import text_table

    several = len(next(iter(judgment.evaluations.values()))[0].runs) > 1
    yield text_table(judgment.results, base=judgment.base or "", per_domain=several)
    yield ""
    printed: set[str] = set()
    for name, protocol in judgment.protocols.items():
        benchmark, system, figures = protocol.splitlines()
        for line in (benchmark, figures):
            if line not in printed:
                printed.add(line)
                yield line
        yield f"{name}: {system.removeprefix('system: ')}"
    if (beside := judgment.beside) is not None:
        from reasonembed.evaluate.published import published_lines

        yield ""
        yield from published_lines(beside)


def score_lines(scores: FileScores, *, per_query: bool) -> Iterator[str]:
    """The means with their intervals in points; with `per_query` first every query's score as a fraction."""
    from reasonembed.evaluate.tables import text_table

    if per_query:
        for measure, values in scores.per_query.items():
            yield from (f"{measure}\t{query_id}\t{value:.4f}" for query_id, value in values.items())
        yield ""
    mean = {measure: {"mean": cell.mean, "low": cell.low, "high": cell.high} for measure, cell in scores.mean.items()}
    yield text_table({f"{scores.n_queries} queries": mean})
    if scores.n_without_results:
        yield f"{scores.n_without_results} queries without results score 0"


def recipe_lines(recipe: Recipe) -> Iterator[str]:
    """What a recipe judges and expects."""
    yield f"{recipe.title}, {recipe.measure}; expected: {recipe.source}"
    yield f"within {recipe.tolerance.ok:g} points OK, within {recipe.tolerance.close:g} close"
    yield f"command: {shlex.join(recipe.command())}"
    if recipe.note:
        yield recipe.note


def reproduction_lines(found: Reproduction) -> Iterator[str]:
    """Ours against what was expected, in points, and the protocol."""
    yield f"\n{'domain':<22} {'ours':>6} {'expected':>9} {'difference':>11}"
    for line in found.comparisons:
        yield f"{line.domain:<22} {line.ours:>6.2f} {line.expected:>9.2f} {line.difference:>+11.2f}  {line.verdict}"
    yield ""
    yield from found.judgment.protocols[found.recipe.name].splitlines()


def example_lines(example: ShownExample, domain: str, *, negatives: int) -> Iterator[str]:
    """One training example for a person to read."""
    yield f"== {domain} / {example.query_id}"
    yield from _paragraph("query", example.query)
    yield from _paragraph("reasoning query", example.reasoning_query)
    conditions = example.conditions
    if conditions.conditioned:
        yield f"conditions: length {conditions.length}, education {conditions.education}"
    yield from _paragraph(f"source {example.source.doc_id} (never a candidate)", example.source.content)
    if example.copy_ids:
        yield f"copies of the source: {', '.join(example.copy_ids)}"
    for number, one in enumerate(example.companions, 2):
        yield from _paragraph(f"source {number}: {one.document.doc_id} (never a candidate)", one.document.content)
        if one.copy_ids:
            yield f"copies of source {number}: {', '.join(one.copy_ids)}"
    for kind, documents in (("positive", example.positives), ("negative", example.negatives[:negatives])):
        for document in documents:
            yield from _graded(kind, document)
    if len(example.negatives) > negatives:
        yield f"... and {len(example.negatives) - negatives} more negatives"
    yield ""


def dropped_lines(workspace: Workspace, domains: Iterable[str], *, json_lines: bool) -> Iterator[str]:
    """The rows that stages refused, with their reasons."""
    import msgspec

    from reasonembed.manifest import DROPPED, read_dropped
    from reasonembed.remixer.stages import STAGES

    for domain in domains:
        for stage in STAGES:
            folder = workspace.stage_folder(domain, stage)
            for row in read_dropped(folder) if (folder / DROPPED).exists() else ():
                if json_lines:
                    named = {"domain": domain, "stage": stage, **msgspec.structs.asdict(row)}
                    yield msgspec.json.encode(named).decode()
                else:
                    yield f"{domain}  {stage}  {row.row_id}  {row.reason}: {' '.join(row.detail.split())[:200]}"


def _graded(kind: str, shown: ShownDocument) -> Iterator[str]:
    yield from _paragraph(f"{kind} {shown.document.doc_id}, grade {shown.grade}", shown.document.content)
    yield from _paragraph("  why", shown.reason)


def _paragraph(label: str, text: str) -> Iterator[str]:
    flat = " ".join(text.split())
    yield f"{label}:"
    yield from textwrap.wrap(flat, _WIDTH, initial_indent="    ", subsequent_indent="    ")
