"""The dataset card: what a reader of released data is told, as the README.md that the Hugging Face hub reads.

All of it comes from the manifests of the stages. No path, URL or time stands in it, so that equal data have an equal
card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.errors import InputError
from reasonembed.files import write_text
from reasonembed.manifest import Manifest, read_manifest
from reasonembed.remixer import annotate, assemble, generate, holdout, mine, reason, select
from reasonembed.remixer.release import release_name
from reasonembed.remixer.stopping import STOPPED
from reasonembed.workspace import Workspace

CARD_FILE = "README.md"
UNKNOWN_LICENSE = "unknown"

_ROLES = {
    select.STAGE: "asks whether a document belongs to the domain",
    generate.STAGE: "writes queries (generator)",
    reason.STAGE: "thinks queries through (reasoner)",
    annotate.STAGE: "grades candidates (annotator)",
}
_COUNTED = {
    select.STAGE: "Sources",
    generate.STAGE: "Queries",
    reason.STAGE: "Reasoning queries",
    annotate.STAGE: "Graded pairs",
    assemble.STAGE: "Examples",
    holdout.STAGE: "Held out",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_LOCAL = re.compile(r"\A(?:[/~.\\]|[A-Za-z]:|file:)|\\|/.*/|://")
_NOT_IN_CODE = re.compile(r"[`|\s]+")

_FIELDS = """\
| field | what it holds |
| --- | --- |
| `prompt` | the retrieval instruction of the domain |
| `query` | the query |
| `reasoning_query` | the query thought through by a model that saw nothing else |
| `pos`, `neg` | texts of documents graded as relevant, and of those graded as not |
| `pos_scores`, `neg_scores` | their grades, 1 (irrelevant) to 5 (directly and fully responsive) |
| `train_group_size`, `batch_size` | the recipe's passages per query, and queries per device of eight |
"""


class DomainFacts(msgspec.Struct, frozen=True):
    """What the card states about one domain: the receipts of its stages."""

    name: str
    stages: Mapping[str, Manifest]

    @property
    def language(self) -> str:
        """The language that its queries are written in."""
        return str(self.stages[generate.STAGE].config["domain"]["language"])

    @property
    def examples(self) -> int:
        """The number of its examples."""
        return self.stages[assemble.STAGE].rows_out


def domain_facts(workspace: Workspace, domain: str) -> DomainFacts:
    """The receipts of a domain. Raises InputError if its examples are not assembled."""
    names = (*_COUNTED, mine.STAGE)
    manifests = {name: read_manifest(workspace.stage_folder(domain, name)) for name in names}
    finished = {name: manifest for name, manifest in manifests.items() if manifest is not None}
    if missing := [name for name in names if name not in finished and name != holdout.STAGE]:
        raise InputError(
            f"the stage {missing[0]} of {domain} in {workspace.path} is not finished, so there is nothing to describe. "
            f"Run `reasonembed synthesize` to the end first."
        )
    return DomainFacts(domain, finished)


def write_card(folder: Path, workspace: Workspace, domains: Iterable[str], *, license: str) -> None:
    """Write the card of the domains' released files into `folder`. Raises InputError, StorageError."""
    facts = [domain_facts(workspace, name) for name in domains]
    write_text(folder / CARD_FILE, dataset_card(facts, license=license))


def dataset_card(domains: Sequence[DomainFacts], *, license: str = UNKNOWN_LICENSE) -> str:
    """The text of README.md for the released files of these domains, which lie beside it.

    license: an identifier of the hub; `unknown` comes with a sentence that it has to be set.
    """
    parts = [
        _head(domains, license),
        "# Training data for reasoning-intensive retrieval\n\n"
        "Synthetic queries with graded documents, made with reasonembed's ReMixer (ReasonEmbed, arXiv:2510.08252). "
        "Queries, reasoning queries and grades are a language model's; no person has checked them.",
        _license_words(license),
        _loading(domains),
        "## Fields\n\n" + _FIELDS.rstrip(),
        "## How it was made\n\n" + "\n\n".join(_making(domains)),
        "## Counts\n\n" + _table(_count_rows(domains)),
        "## Dropped, by stage and reason\n\n" + (_table(_dropped_rows(domains)) or "Nothing was dropped."),
    ]
    return "\n\n".join(parts) + "\n"


def public_name(name: str) -> str:
    """A model's name fit for a card: of a path or a URL only the last part, nothing that ends the code it stands in."""
    shown = re.split(r"[/\\]", name.rstrip("/\\"))[-1] if _LOCAL.search(name) else name
    return _NOT_IN_CODE.sub(" ", shown).strip() or "unnamed"


def _head(domains: Sequence[DomainFacts], license: str) -> str:
    """The YAML that the hub reads; its strings are quoted as JSON's are, so that `no` stays Norwegian."""
    total = sum(one.examples for one in domains)
    lines = ["---", f"license: {_quoted(license)}", "language:"]
    lines += [f"- {_quoted(language)}" for language in sorted({one.language for one in domains})]
    lines += [
        "task_categories:",
        "- text-retrieval",
        "annotations_creators:",
        "- machine-generated",
        "language_creators:",
        "- machine-generated",
        "size_categories:",
        f"- {next((name for limit, name in _SIZES if total < limit), _LARGEST)}",
        "tags:",
        *(f"- {tag}" for tag in ("synthetic", "reasoning-intensive-retrieval", "dense-retrieval", "reasonembed")),
        "configs:",
    ]
    for one in domains:
        lines += [f"- config_name: {_quoted(one.name)}", "  data_files:"]
        lines += ["  - split: train", f"    path: {_quoted(release_name(one.name))}"]
    return "\n".join([*lines, "---"])


def _license_words(license: str) -> str:
    if license != UNKNOWN_LICENSE:
        return f"Licence: `{license}`."
    return (
        "**The licence is not set.** It depends on the corpus and on the terms of the models, which reasonembed cannot "
        "know: whoever publishes this data must set it (`--license` of `reasonembed synthesize` or `push`)."
    )


def _loading(domains: Sequence[DomainFacts]) -> str:
    first = domains[0].name
    return (
        "## How to load it\n\n```python\nfrom datasets import load_dataset\n\n"
        f'examples = load_dataset("PATH", "{first}", split="train")\n```\n\n'
        "PATH is this folder, or its name on the hub. "
        "`reasonembed train PATH --base MODEL --out FOLDER` trains on the files as they are."
    )


def _making(domains: Sequence[DomainFacts]) -> Iterator[str]:
    if any(_sources_per_query(one.stages) > 1 for one in domains):
        yield (
            "No query has a document that it was written from, nor a near-copy of one, among its positives or "
            "negatives: all of them were taken out before candidates were ranked."
        )
    else:
        yield (
            "No query has the document that it was written from, nor a near-copy of it, among its positives or "
            "negatives: both were taken out before candidates were ranked."
        )
    yield "\n".join(f"- {one.name}: {_exclusion_words(one.stages)}" for one in domains)
    yield from _stopping_words(domains)
    yield _table(_model_rows(domains))
    yield "A prompt is named by the SHA-256 of its text; prompts ship with reasonembed."
    versions = sorted({manifest.version for one in domains for manifest in one.stages.values()})
    yield f"Made with reasonembed {', '.join(versions)}."


def _sources_per_query(stages: Mapping[str, Manifest]) -> int:
    return int(stages[select.STAGE].config["select"].get("sources_per_query", 1))


def _exclusion_words(stages: Mapping[str, Manifest]) -> str:
    selected, mined = stages[select.STAGE], stages[mine.STAGE]
    table = mined.config["mine"]
    names = [public_name(str(name)) for name in mined.settings.get("retrievers", ())]
    by = f"{table['retriever']}" + (f" ({', '.join(f'`{name}`' for name in names)})" if names else "")
    if selected.config["select"].get("allow_benchmark_sources") and "benchmark" in selected.inputs:
        benchmark = "documents that a benchmark judges were allowed as sources"
    elif "benchmark" in selected.inputs:
        benchmark = "documents that a benchmark judges were no sources"
    else:
        benchmark = "no benchmark's documents were excluded as sources, since none was named"
    several = _sources_per_query(stages)
    written = (
        f"each query was written from {several} documents, a source and what BM25 ranks next to it by the source's "
        f"text, near-copies passed over, and asks for the idea that they share; "
        if several > 1
        else ""
    )
    return (
        f"{written}candidates by {by}, the best {table['top_k']}; "
        f"near-copies share {table['near_copy']} of their word 3-grams; "
        f"{benchmark}; SHA-256 of the corpus `{selected.inputs['corpus']}`"
    )


def _stopping_words(domains: Sequence[DomainFacts]) -> Iterator[str]:
    """Which candidates nobody judged: what is missing from the graded pairs is no negative."""
    for one in domains:
        manifest = one.stages[annotate.STAGE]
        if stop := manifest.config[annotate.STAGE].get("stop_after_irrelevant"):
            unjudged = manifest.dropped.get(STOPPED, 0)
            yield (
                f"{one.name}: candidates were judged in the order of their ranks, and a query's others left unjudged "
                f"after {stop} grades of 1 or 2 in a row: {unjudged:,} of {manifest.rows_in:,} pairs."
            )


def _model_rows(domains: Sequence[DomainFacts]) -> list[list[str]]:
    """One row for each stage that asked a model, and for each way in which domains differ there."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for stage, role in _ROLES.items():
        for one in domains:
            manifest = one.stages[stage]
            if "model" in manifest.config:
                model = f"`{public_name(str(manifest.config['model']))}`"
                prompt = f"`{manifest.inputs['prompt']}`"
                key = (stage, role, model, _decoding(manifest.config[stage]), str(manifest.config["seed"]), prompt)
                rows.setdefault(key, []).append(one.name)
    head = ["Stage", "What the model does", "Model", "Decoding", "Seed", "Prompt", "Domains"]
    return [head, *([*key, ", ".join(names)] for key, names in rows.items())]


def _decoding(table: Mapping[str, Any]) -> str:
    shown = ("temperature", "top_p", "top_k", "max_tokens", "thinking", "samples", "aggregate", "stop_after_irrelevant")
    return ", ".join(f"{name} {json.dumps(table[name]).strip(chr(34))}" for name in shown if name in table)


def _count_rows(domains: Sequence[DomainFacts]) -> list[list[str]]:
    rows = [["Domain", *_COUNTED.values()]]
    for one in domains:
        counts = [one.stages[stage].rows_out if stage in one.stages else 0 for stage in _COUNTED]
        rows.append([one.name, *(f"{count:,}" for count in counts)])
    return rows


def _dropped_rows(domains: Sequence[DomainFacts]) -> list[list[str]]:
    found = [
        [one.name, stage, f"`{reason}`", f"{count:,}"]
        for one in domains
        for stage, manifest in one.stages.items()
        for reason, count in manifest.dropped.items()
    ]
    return [["Domain", "Stage", "Reason", "Rows"], *found] if found else []


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _quoted(text: str) -> str:
    return json.dumps(text)


__all__ = ["CARD_FILE", "UNKNOWN_LICENSE", "DomainFacts", "dataset_card", "domain_facts", "public_name", "write_card"]
