"""`reasonembed domains`: the domains that ship with the package, and making and checking one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="List, show, check and make domains: instructions, kinds of query and document, relevance.",
    no_args_is_help=True,
)


@app.command("list")
def list_domains() -> None:
    """List the domains that ship with the package.

    Example: reasonembed domains list
    """
    from reasonembed.domains import domain_names, load_domain

    for name in domain_names():
        domain = load_domain(name)
        typer.echo(f"{name:<22} {domain.query_kind} -> {domain.document_kind}: {domain.instruction}")


@app.command("show")
def show_domain(
    domain: Annotated[str, typer.Argument(help="A shipped domain's name or the path of a TOML file.")],
) -> None:
    """Print a domain as TOML, a start for your own file; a mistake in a file is named with its line.

    Example: reasonembed domains show general > my_domain.toml
    """
    import msgspec
    import tomli_w

    from reasonembed.domains import load_domain

    typer.echo(tomli_w.dumps(msgspec.to_builtins(load_domain(domain))), nl=False)


@app.command("new")
def new_domain(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores, e.g. tax_law.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: NAME.toml, here.")] = None,
    query_kind: Annotated[str, typer.Option(help='What people ask, e.g. "tax question".')] = "",
    document_kind: Annotated[str, typer.Option(help='What the corpus holds, e.g. "statute".')] = "",
    relevance: Annotated[str, typer.Option(help='Completes "A document is relevant if ...".')] = "",
    instruction: Annotated[str, typer.Option(help="The retrieval instruction, before every query.")] = "",
    generation: Annotated[str, typer.Option(help='What to write from a document: completes "Write ...".')] = "",
    language: Annotated[str, typer.Option(help="Picks the BM25 analyser, e.g. de.")] = "en",
) -> None:
    """Write a domain of your own as a commented TOML file; on a terminal, what is missing is asked for.

    Example: reasonembed domains new tax_law --query-kind "tax question" --document-kind statute
    """
    import sys

    import msgspec

    from reasonembed.config import build
    from reasonembed.domains import Domain, load_domain
    from reasonembed.domains.write import COMMENTS, write_domain
    from reasonembed.errors import ConfigError

    given = {
        "query_kind": query_kind,
        "document_kind": document_kind,
        "relevance": relevance,
        "instruction": instruction,
        "generation": generation,
    }
    missing = [key for key, value in given.items() if not value.strip()]
    if missing and not sys.stdin.isatty():
        flags = ", ".join("--" + key.replace("_", "-") for key in missing)
        raise ConfigError(f"the domain {name} lacks {flags}. Give them, or run this on a terminal to be asked.")
    general = msgspec.to_builtins(load_domain("general"))
    for key in missing:
        given[key] = typer.prompt(f"{COMMENTS[key]}\n{key}", default=general[key], err=True)
    path = output or Path(f"{name}.toml")
    write_domain(path, build(Domain, {"name": name, "language": language, **given}, where="flags"))
    typer.echo(f"{path}\nnext  reasonembed synthesize CORPUS --domain {path} ...")
