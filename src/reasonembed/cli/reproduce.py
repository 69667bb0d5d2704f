"""`reasonembed reproduce`: published scores, judged again and held against what is expected."""

from __future__ import annotations

from typing import Annotated

import typer


def reproduce(
    name: Annotated[str, typer.Argument(help="A recipe (see --list), or the path of a TOML file.")] = "",
    data: Annotated[str | None, typer.Option(help="The benchmark's files: bright:FOLDER. Default: the hub.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model lies; default: its name on the hub.")] = None,
    domains: Annotated[str | None, typer.Option(help="Only these, separated by commas; no mean then.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Print the recipes and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be judged and stop.")] = False,
) -> None:
    """Judge a published system anew: per domain ours, expected and difference with OK, close or FAIL (exit code 1).

    Example: reasonembed reproduce bm25-query-side --data bright:data/BRIGHT
    """
    from reasonembed.cli.output import recipe_lines, reproduction_lines
    from reasonembed.cli.systems import need_training
    from reasonembed.encoder.backbones import base_model
    from reasonembed.errors import ConfigError
    from reasonembed.evaluate.reproduction import load_recipe, recipe_names
    from reasonembed.workflow.reproduction import reproduce as run

    if show_list:
        for recipe in map(load_recipe, recipe_names()):
            typer.echo(f"{recipe.name:<34} {recipe.title}, {recipe.measure}")
        return
    if not name:
        raise ConfigError("give the name of a recipe; `reasonembed reproduce --list` prints them.")
    recipe = load_recipe(name)
    typer.echo("\n".join(recipe_lines(recipe)))
    if dry_run:
        return
    if recipe.model:
        need_training()
    chosen = domains.split(",") if domains else None
    found = run(recipe, data=data, model=base_model(model) if model else None, domains=chosen)
    typer.echo("\n".join(reproduction_lines(found)))
    if found.failed:
        raise typer.Exit(1)
