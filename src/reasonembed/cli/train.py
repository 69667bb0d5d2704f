"""`reasonembed train`: a model from training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from typing import NoReturn

    from reasonembed.redapter.config import TrainConfig
    from reasonembed.redapter.recipe import Recipe


def _print_recipes(wanted: bool) -> None:
    if not wanted:
        return
    from reasonembed.redapter.recipe import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        typer.echo(f"{name:<14} {recipe.base:<26} {recipe.title}")
    raise typer.Exit


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Workspaces of `synthesize`; files or folders of the published format, Tevatron triples, or "
            "sentence-transformers columns (JSONL, parquet)."
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            "-b",
            help="The model to start from: a folder, a name on the hub, or minilm. Default: the recipe's.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the trained model goes. Default: models/RECIPE.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A backbone with its settings: a name of --list-recipes, or your own TOML file."),
    ] = None,
    list_recipes: Annotated[
        bool,
        typer.Option("--list-recipes", callback=_print_recipes, is_eager=True, help="Print the recipes and exit."),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML with the keys of TrainConfig; they override the recipe's.")
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            "--domain", "-d", help="Of the data files: a name, or your own TOML file. Default: the file's name."
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="ri-infonce or infonce.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Visits of every example.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The peak.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides similarities.")] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Passages per query: one positive, the rest negatives; 1: in-batch negatives alone."),
    ] = None,
    global_queries: Annotated[int | None, typer.Option(help="Queries per optimiser step.")] = None,
    start_step: Annotated[int | None, typer.Option(help="Steps with plain InfoNCE before weights count.")] = None,
    instruction: Annotated[
        bool | None,
        typer.Option("--instruction/--no-instruction", help="Put the domain's instruction before queries."),
    ] = None,
    lora: Annotated[
        bool | None,
        typer.Option("--lora/--no-lora", help="Train LoRA adapters (rank 32, alpha 64), merged at the end."),
    ] = None,
    qlora: Annotated[
        bool, typer.Option("--qlora", help="LoRA on a base that lies in 4 bits while it trains (needs bitsandbytes).")
    ] = False,
    train_layers: Annotated[int | None, typer.Option(help="Train only the last so many layers.")] = None,
    base_share: Annotated[
        float | None,
        typer.Option(help="The base's part of each trained weight in the saved model: 0 (none) to below 1."),
    ] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="bfloat16 autocast.")] = None,
    matmul_precision: Annotated[
        str | None,
        typer.Option(help="Of float32 products: highest; high: TF32 on a GPU; medium: also bfloat16 on a CPU."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order and draws.")] = None,
    micro_batch_tokens: Annotated[int | None, typer.Option(help="Tokens computed at once: bounds memory.")] = None,
    packed: Annotated[
        bool | None,
        typer.Option(
            "--packed/--padded", help="Lay texts one after the other instead of padding them: the same gradient."
        ),
    ] = None,
    compile_layers: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Run the layers that train compiled (torch.compile)."),
    ] = None,
    activation_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--activation-checkpointing/--keep-activations",
            help="Keep a layer's input only and run it again for the gradient: less memory, the same gradient.",
        ),
    ] = None,
    shard: Annotated[
        bool | None,
        typer.Option("--shard/--no-shard", help="Each of several processes holds a part of every weight (FSDP2)."),
    ] = None,
    shard_optimizer: Annotated[
        bool | None,
        typer.Option(
            "--shard-optimizer/--no-shard-optimizer",
            help="Each of several processes holds a part of the optimiser's state (ZeRO-1).",
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="Queries that choose the weights: a workspace's, its holdout folder, a BEIR folder."),
    ] = None,
    validate_every_steps: Annotated[int | None, typer.Option(help="0: before the first and after the last.")] = None,
    patience: Annotated[int | None, typer.Option(help="Validations without a better score that end it.")] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Tell this tracker too: tensorboard, wandb, or another of accelerate's.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what was trained before under --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print examples, batches and steps; train nothing.")
    ] = False,
) -> None:
    """Train with InfoNCE or RI-InfoNCE; if the workspace holds out queries, base against trained follows.

    The result is a sentence-transformers folder. Interrupted, the same command goes on from the last checkpoint.
    On several devices: torchrun --standalone --nproc-per-node 8 -m reasonembed train ... (docs/training.md).
    A setting is decided by its flag, else --config, else --recipe, else TrainConfig's defaults;
    batch shapes, where these leave them open, by the domain's file, else the data.

    Example: reasonembed train runs/trial --base minilm --out models/trial --no-instruction --epochs 4
    """
    from reasonembed.cli.output import training_lines
    from reasonembed.cli.systems import need_training

    need_training()
    from reasonembed.config import override
    from reasonembed.errors import ConfigError
    from reasonembed.processes import is_first
    from reasonembed.redapter.recipe import load_recipe
    from reasonembed.workflow.training import plan_training
    from reasonembed.workflow.training import train as run
    from reasonembed.workflow.training_data import load_training_data

    chosen = load_recipe(recipe) if recipe else None
    base = base or (chosen.base if chosen else _missing("--base"))
    out = out or (Path("models") / Path(recipe).stem if recipe else _missing("--out"))
    if qlora and lora is False:
        raise ConfigError("--qlora trains LoRA adapters, and --no-lora wants none. Leave one of them out.")
    settings = _settings(chosen, config, lora=lora)
    flags: dict[str, object] = {
        "loss": loss,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "temperature": temperature,
        "group_size": group_size,
        "global_queries": global_queries,
        "start_step": start_step,
        "instruction": instruction,
        "lora": {} if (lora or qlora) and settings.lora is None else None,
        "lora.quantize_base": qlora or None,
        "train_layers": train_layers,
        "base_share": base_share,
        "bf16": bf16,
        "matmul_precision": matmul_precision,
        "seed": seed,
        "micro_batch_tokens": micro_batch_tokens,
        "packed": packed,
        "compile": compile_layers,
        "activation_checkpointing": activation_checkpointing,
        "shard": shard,
        "shard_optimizer": shard_optimizer,
        "validate_every_steps": validate_every_steps,
        "patience": patience,
    }
    settings = override(settings, flags)
    loaded = load_training_data(data, domain=domain)
    if dry_run:
        from reasonembed.cli.output import training_plan_lines

        typer.echo("\n".join(training_plan_lines(plan_training(loaded, settings), settings.epochs)))
        return
    report = run(
        loaded,
        base=base,
        out=out,
        config=settings,
        validation=validation or (),
        tracker=tracker,
        resume=not restart,
    )
    if is_first():
        typer.echo("\n".join(training_lines(report)))


def _settings(recipe: Recipe | None, config: Path | None, *, lora: bool | None) -> TrainConfig:
    """The recipe's settings and those of the file over them, without LoRA if the flag says so."""
    import msgspec

    from reasonembed.config import overlay_toml
    from reasonembed.redapter.config import TrainConfig

    settings = recipe.training if recipe else TrainConfig()
    if lora is False:
        settings = msgspec.structs.replace(settings, lora=None)  # so that the file may set train_layers
    if config:
        settings = overlay_toml(config, settings)
    return msgspec.structs.replace(settings, lora=None) if lora is False else settings


def _missing(flag: str) -> NoReturn:
    from reasonembed.errors import ConfigError
    from reasonembed.redapter.recipe import recipe_names

    raise ConfigError(f"{flag} is missing. Give it, or a recipe that has one: --recipe {', '.join(recipe_names())}.")
