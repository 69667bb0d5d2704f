"""`reasonembed show`: the rows of a workspace to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    workspace: Annotated[Path, typer.Argument(help="A folder that `synthesize` filled, e.g. runs/trial.")],
    domain: Annotated[str | None, typer.Option("--domain", "-d", help="Default: all domains of the workspace.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many examples of each domain.")] = 3,
    negatives: Annotated[int, typer.Option(min=0, help="So many negatives of each example.")] = 3,
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Show the dropped rows with their reasons instead.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all fields.")] = False,
) -> None:
    """Print training examples: query, source, positives and negatives with grades and reasons; or what was dropped.

    Example: reasonembed show runs/trial --limit 1
    """
    import msgspec

    from reasonembed.cli.output import dropped_lines, example_lines
    from reasonembed.remixer.show import iter_shown
    from reasonembed.workflow.training_data import finished_domains
    from reasonembed.workspace import Workspace

    place = Workspace(workspace)
    if dropped:
        for line in dropped_lines(place, [domain] if domain else place.domains(), json_lines=json_lines):
            typer.echo(line)
        return
    for name in [domain] if domain else finished_domains(place):
        for example in iter_shown(place, name, limit=limit):
            if json_lines:
                typer.echo(msgspec.json.encode(example).decode())
            else:
                typer.echo("\n".join(example_lines(example, name, negatives=negatives)))
