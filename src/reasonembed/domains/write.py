"""A user's own domain as a TOML file with comments, which `load_domain` reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import tomli_w

from reasonembed.domains import Domain
from reasonembed.errors import InputError
from reasonembed.files import write_text

COMMENTS = {
    "name": "Names folders and the released file: lower-case letters, digits and underscores.",
    "instruction": "Stands before every query, in training and in use; changing it later means training again.",
    "query_kind": 'What people ask, as a noun, e.g. "biology post".',
    "document_kind": 'What the corpus holds, as a noun, e.g. "passage".',
    "relevance": 'When a document counts, completing "A document is relevant if ...": the annotator grades by it.',
    "generation": 'What to write from a document, completing "Write ...": a query that needs its principle.',
    "language": "Picks the BM25 analyser and the word counts.",
    "group_size": "Texts per query in training: one positive and group_size - 1 negatives.",
    "global_queries": "Queries per optimiser step over all devices.",
}
"""What each key of a domain is for."""


def domain_toml(domain: Domain) -> str:
    """The domain as TOML, each key under a comment."""
    values = msgspec.to_builtins(domain)
    return "\n".join(f"# {comment}\n{tomli_w.dumps({key: values[key]})}" for key, comment in COMMENTS.items())


def write_domain(path: Path, domain: Domain) -> None:
    """Write the domain to `path`. Raises InputError if the name does not end in .toml or something stands there."""
    if path.suffix != ".toml":
        raise InputError(f"{path} does not end in .toml, by which a domain's file is known. Add the ending.")
    if path.exists():
        raise InputError(f"{path} exists already. Remove it or choose another name.")
    write_text(path, domain_toml(domain))
