"""`reasonembed analyze`: contamination, triviality, agreement of annotators, data size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The analyses of the paper: contamination, triviality, annotator agreement, data size.",
    no_args_is_help=True,
)

Data = Annotated[list[Path], typer.Argument(help="Workspaces of `synthesize`, or *-formatted.jsonl files or folders.")]
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
