"""Domains as data: retrieval instruction, kinds of query and document, relevance definition, batch shape.

The twelve domains of BRIGHT carry the constants that the released checkpoints were trained with, the eight of
R2MED (`r2med_...`) the instructions that it is judged with (PAPER.md section 3); `general` serves any other corpus;
a user's own domain is a TOML file of the same keys.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import msgspec

from reasonembed.config import load_toml
from reasonembed.errors import ConfigError, InputError, nearest

LANGUAGES = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch",
    "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""Languages that the BM25 analyser can stem: code -> name of the Snowball stemmer."""


RELEASE_DEVICES = 8
"""The devices that the released training ran on: its data files count queries per device (PAPER.md section 2)."""


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One domain. All texts are in the words that prompts and models see."""

    name: str  # lower-case letters, digits and underscores: it names folders
    instruction: str  # the retrieval instruction, put before every query
    query_kind: str  # e.g. "biology post"
    document_kind: str  # e.g. "passage"
    relevance: str  # when a document is relevant, completing "A document is relevant if ..."
    generation: str  # what to write from a document, completing "Write ..."
    language: str = "en"  # picks the BM25 analyser and the word counts
    group_size: int = 16  # texts per query in training: one positive and group_size - 1 negatives (paper, Sec. 2)
    global_queries: int = 64  # queries per optimiser step over all devices (paper: 8 devices x 8 queries)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,63}", self.name):
            raise ValueError(f'"name" is {self.name!r}; use lower-case letters, digits and "_", at most 64.')
        for key in ("instruction", "query_kind", "document_kind", "relevance", "generation"):
            if not getattr(self, key).strip():
                raise ValueError(f'"{key}" is empty; every domain needs one (see `reasonembed domains show general`).')
        if self.language not in LANGUAGES:
            raise ValueError(
                f'"language" is {self.language!r}, for which there is no analyser. Known: {", ".join(LANGUAGES)}.'
            )
        if self.group_size < 2:
            raise ValueError(f'"group_size" is {self.group_size}; it must be at least 2: a positive and a negative.')
        if self.global_queries < 1:
            raise ValueError(f'"global_queries" is {self.global_queries}; it must be at least 1.')

    @property
    def batch_size(self) -> int:
        """Queries per device of 8, as the released data files state it."""
        return released_batch_size(self.global_queries)


def released_batch_size(global_queries: int) -> int:
    """The `batch_size` of a released data file: queries per device of `RELEASE_DEVICES`, at least 1."""
    return max(1, global_queries // RELEASE_DEVICES)


def domain_names() -> list[str]:
    """The names of the shipped domains: BRIGHT's first, then R2MED's, each in its own order, `general` last."""
    return list(_SHIPPED)


def load_domain(name: str | Path) -> Domain:
    """The shipped domain of that name, or the one in a TOML file (a path ending in `.toml`).

    Raises ConfigError for an unknown name or a mistake in the file, with file, line and the nearest known word.
    """
    if str(name).endswith(".toml"):
        return load_toml(Path(name), Domain)
    if name not in _SHIPPED:
        raise ConfigError(
            f'unknown domain "{name}"{nearest(str(name), _SHIPPED) or "."} Known: {", ".join(_SHIPPED)}; '
            f"or give the path of your own TOML file, ending in .toml."
        )
    with resources.as_file(resources.files(__name__) / f"{name}.toml") as path:
        try:
            return load_toml(path, Domain)
        except InputError as error:
            raise ConfigError(f"the domain {name} is missing from the installation: {error}") from error


def shipped_or_general(name: str) -> Domain:
    """The shipped domain of that name, or `general` where there is none."""
    return load_domain(name if name in _SHIPPED else "general")


_SHIPPED = (
    "biology", "earth_science", "economics", "psychology", "robotics", "stackoverflow", "sustainable_living",
    "leetcode", "pony", "aops", "theoremqa_questions", "theoremqa_theorems",
    "r2med_biology", "r2med_bioinformatics", "r2med_medical_sciences", "r2med_medxpertqa_exam", "r2med_medqa_diag",
    "r2med_pmc_treatment", "r2med_pmc_clinical", "r2med_iiyi_clinical", "general",
)  # fmt: skip
