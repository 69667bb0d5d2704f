"""`reasonembed doctor`: is this machine fit for the job?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs will be written; its free space is checked.")] = Path(),
) -> None:
    """Check versions, a torchvision that does not match torch, devices, memory and disk.

    Exit code 1 if something is wrong.

    Example: reasonembed doctor
    """
    from reasonembed.doctor import examine

    findings = examine(folder)
    for finding in findings:
        typer.echo(f"{finding.state:<5} {finding.subject:<24} {finding.found}")
        if finding.remedy:
            typer.echo(f"{'':<5} {'':<24} -> {finding.remedy}")
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)
