"""`reasonembed push`: data or a model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    path: Annotated[Path, typer.Argument(help="A workspace of `synthesize`, or a model folder of `train`.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; it is made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Make it public; a new repository is private.")] = False,
    license: Annotated[
        str | None, typer.Option(help="Of a workspace's data, e.g. cc-by-4.0; default: that of `synthesize`.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the files and their sizes; upload nothing.")
    ] = False,
) -> None:
    """Upload released data with its card, or a model folder. The token is read from HF_TOKEN and from nowhere else.

    Example: reasonembed push runs/trial me/trial-data --license cc-by-4.0 --dry-run
    """
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from reasonembed.workflow.push import plan_lines, plan_push
    from reasonembed.workflow.push import push as upload

    plan = plan_push(path, repo, public=public, license=license)
    typer.echo("\n".join(plan_lines(plan)))
    if not dry_run:
        typer.echo(f"uploaded: {upload(plan)}")
