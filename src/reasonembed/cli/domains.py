"""`reasonembed domains`: the domains that ship with the package, and checking one's own."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="List, show and check domains: instructions, kinds of query and document, relevance.",
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
        typer.echo(f"{name:<20} {domain.query_kind} -> {domain.document_kind}: {domain.instruction}")


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
