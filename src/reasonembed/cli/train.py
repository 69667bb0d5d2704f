"""`reasonembed train`: a model from training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        list[Path], typer.Argument(help="Workspaces of `synthesize`, or *-formatted.jsonl files or folders.")
    ],
    base: Annotated[
        str,
        typer.Option("--base", "-b", help="The model to start from: a folder, a name on the hub, or minilm."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the trained model goes.")],
    config: Annotated[Path | None, typer.Option(help="TOML with the keys of TrainConfig; flags override it.")] = None,
    loss: Annotated[str | None, typer.Option(help="ri-infonce or infonce.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Visits of every example.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The peak.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides similarities.")] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Passages per query: one positive, the rest negatives.")
    ] = None,
    global_queries: Annotated[int | None, typer.Option(help="Queries per optimiser step.")] = None,
    start_step: Annotated[int | None, typer.Option(help="Steps with plain InfoNCE before weights count.")] = None,
    instruction: Annotated[
        bool | None,
        typer.Option("--instruction/--no-instruction", help="Put the domain's instruction before queries."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train LoRA adapters (rank 32, alpha 64), merged at the end.")
    ] = False,
    train_layers: Annotated[int | None, typer.Option(help="Train only the last so many layers.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="bfloat16 autocast.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order and draws.")] = None,
    micro_batch_tokens: Annotated[int | None, typer.Option(help="Tokens computed at once: bounds memory.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what was trained before under --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print examples, batches and steps; train nothing.")
    ] = False,
) -> None:
    """Train with InfoNCE or RI-InfoNCE; if the workspace holds out queries, base against trained follows.

    The result is a sentence-transformers folder. Interrupted, the same command goes on from the last checkpoint.
    On several devices: torchrun --standalone --nproc-per-node 8 -m reasonembed train ... (docs/training.md).

    Example: reasonembed train runs/trial --base minilm --out models/trial --no-instruction --epochs 4
    """
    from reasonembed.cli.output import need_training, training_lines
    from reasonembed.encoder.backbones import base_model

    need_training()
    from reasonembed.config import load_toml, override
    from reasonembed.processes import is_first
    from reasonembed.redapter.config import TrainConfig
    from reasonembed.workflow.training import plan_training
    from reasonembed.workflow.training import train as run

    settings = load_toml(config, TrainConfig) if config else TrainConfig()
    flags: dict[str, object] = {
        "loss": loss,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "temperature": temperature,
        "group_size": group_size,
        "global_queries": global_queries,
        "start_step": start_step,
        "instruction": instruction,
        "lora": {} if lora else None,
        "train_layers": train_layers,
        "bf16": bf16,
        "seed": seed,
        "micro_batch_tokens": micro_batch_tokens,
    }
    settings = override(settings, flags)
    if dry_run:
        from reasonembed.cli.output import training_plan_lines

        typer.echo("\n".join(training_plan_lines(plan_training(data, settings), settings.epochs)))
        return
    report = run(data, base=base_model(base), out=out, config=settings, resume=not restart)
    if is_first():
        typer.echo("\n".join(training_lines(report)))
