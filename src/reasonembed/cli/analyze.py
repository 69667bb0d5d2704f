"""`reasonembed analyze`: contamination, triviality, agreement of annotators, data size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The analyses of the paper: contamination, triviality, annotator agreement, data size.",
    no_args_is_help=True,
)

Data = Annotated[list[Path], typer.Argument(help="Workspaces of `synthesize`, or files or folders of training data.")]
Benchmarks = Annotated[
    list[str], typer.Option("--benchmark", "-B", help="A BEIR folder, a folder of them, or pocket; may repeat.")
]


@app.command("contamination")
def contamination(
    data: Data,
    benchmark: Benchmarks,
    documents: Annotated[
        bool, typer.Option("--documents", help="Compare positives with the benchmark's gold documents too.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="Pairs of this similarity or more are listed, or filtered.")] = 0.5,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write contamination.json and contamination.html there.")
    ] = None,
    filter_out: Annotated[
        Path | None, typer.Option(help="Write the data without what reaches the threshold into this folder.")
    ] = None,
) -> None:
    """For every benchmark query the largest weighted Jaccard similarity to any training query: exact.

    Example: reasonembed analyze contamination runs/trial --benchmark pocket -o contamination
    """
    import time

    from reasonembed.analyze.contamination import Kind
    from reasonembed.analyze.contamination_sections import text_lines
    from reasonembed.workflow.contamination import filter_contaminated, measure_contamination, write_contamination

    started = time.monotonic()
    kinds: list[Kind] = ["query", "document"] if documents else ["query"]
    found = measure_contamination(data, benchmark, kinds=kinds)
    typer.echo("\n\n".join("\n".join(text_lines(one)) for one in found))
    if out:
        title = f"Contamination of {', '.join(path.name for path in data)}"
        write_contamination(out, found, threshold=threshold, title=title, seconds=time.monotonic() - started)
        typer.echo(f"\nresults  {out / 'contamination.json'}\nreport   {out / 'contamination.html'}")
    if filter_out:
        cleaned = filter_contaminated(data, benchmark, filter_out, threshold=threshold, kinds=kinds)
        typer.echo(f"\nkept     {len(cleaned.kept):,} examples in {filter_out}; dropped {len(cleaned.dropped):,}")


@app.command("triviality")
def triviality(
    data: Data,
    sample: Annotated[
        int | None, typer.Option(help="Measure at most so many examples of each domain, drawn by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write triviality.json, triviality.jsonl and triviality.html there."),
    ] = None,
) -> None:
    """Overlap of training queries with their sources, positives and negatives: ROUGE-L, weighted Jaccard, BM25 rank.

    Example: reasonembed analyze triviality runs/trial -o triviality
    """
    import time

    from reasonembed.analyze.triviality_sections import text_lines
    from reasonembed.workflow.triviality import measure_triviality, write_triviality

    started = time.monotonic()
    found = measure_triviality(data, sample=sample, seed=seed)
    typer.echo("\n".join(text_lines(found)))
    if out:
        title = f"Triviality of {', '.join(path.name for path in data)}"
        write_triviality(out, found, title=title, seconds=time.monotonic() - started)
        typer.echo(f"\nresults  {out / 'triviality.json'}\nreport   {out / 'triviality.html'}")


@app.command("agreement")
def agreement(
    labels: Annotated[Path, typer.Argument(help="A workspace, JSONL rows of labels, or qrels.")],
    reference: Annotated[Path, typer.Argument(help="The same of a teacher, or qrels (TREC, or a BEIR folder).")],
    positive: Annotated[int, typer.Option(help="The smallest grade of an annotator that means relevant.")] = 3,
    reference_positive: Annotated[
        int | None, typer.Option(help="The reference's; default: --positive for labels, 1 for qrels.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Accuracy, macro F1, quadratic-weighted kappa and confusion matrix of labels against a teacher's, or qrels.

    Example: reasonembed analyze agreement runs/small runs/teacher
    """
    import msgspec

    from reasonembed.analyze.agreement import text_lines
    from reasonembed.workflow.agreement import measure_agreement

    found = measure_agreement(labels, reference, positive=positive, reference_positive=reference_positive)
    typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode() if json else "\n".join(text_lines(found)))


@app.command("scaling")
def scaling(
    data: Data,
    base: Annotated[
        str, typer.Option("--base", "-b", help="The model to start from: a folder, a name on the hub, or minilm.")
    ],
    benchmark: Annotated[
        list[str], typer.Option("--benchmark", "-B", help="As for `evaluate`: pocket, bright, a folder; may repeat.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Models, scaling.json and scaling.html go there; again goes on.")
    ],
    sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of examples: 100,200,400. Default: all, a half, and so on, six in all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which examples a smaller size holds.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="TOML with the keys of TrainConfig; default: the paper's, with plain InfoNCE.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Visits of every example.")] = None,
    instruction: Annotated[
        bool | None,
        typer.Option("--instruction/--no-instruction", help="Put instructions before queries, in training and after."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes, steps and protocol; train nothing.")] = False,
) -> None:
    """Scores against the number of training samples: nested subsets, one recipe, one benchmark, one plot.

    Example: reasonembed analyze scaling runs/trial --base minilm --no-instruction --benchmark pocket -o scaling
    """
    import time

    from reasonembed.analyze.scaling_sections import text_lines
    from reasonembed.cli.output import evaluation_lines
    from reasonembed.cli.systems import need_training
    from reasonembed.config import load_toml, override
    from reasonembed.evaluate.benchmarks import open_benchmark, together
    from reasonembed.redapter.config import TrainConfig
    from reasonembed.workflow.scaling import REPORT_FILE, RESULTS_FILE, plan_scaling, run_scaling, write_scaling

    need_training()
    started = time.monotonic()
    settings = load_toml(config, TrainConfig) if config else TrainConfig(loss="infonce")
    settings = override(settings, {"epochs": epochs, "instruction": instruction})
    plan = plan_scaling(data, base=base, config=settings, sizes=_sizes(sizes), seed=seed)
    typer.echo("\n".join(text_lines(plan.sizes, plan.protocol)))
    if dry_run:
        return
    judgment = run_scaling(plan, together([open_benchmark(word) for word in benchmark]), out, cache=out / "cache")
    typer.echo("")
    typer.echo("\n".join(evaluation_lines(judgment)))
    title = f"Data size: {', '.join(path.name for path in data)}"
    write_scaling(out, plan, judgment, title=title, seconds=time.monotonic() - started)
    typer.echo(f"\nresults  {out / RESULTS_FILE}\nreport   {out / REPORT_FILE}")


def _sizes(text: str | None) -> list[int] | None:
    from reasonembed.errors import ConfigError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f'--sizes is "{text}"; it must be whole numbers between commas, as in 100,200,400.'
        ) from error
