"""Training examples from wherever they lie: workspaces of `synthesize`, or data files of any layout that is known."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from reasonembed.beir import Collection, read_beir
from reasonembed.corpora import Corpus
from reasonembed.domains import Domain, load_domain
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import Benchmark, load_all, open_benchmark
from reasonembed.manifest import read_manifest, read_rows
from reasonembed.records import Example
from reasonembed.redapter.data import TrainingExample, from_examples
from reasonembed.redapter.layouts import read_data
from reasonembed.remixer import assemble, holdout, select
from reasonembed.remixer.job import corpus_of
from reasonembed.workflow.synthesis import DOMAIN_FILE
from reasonembed.workspace import Workspace


class TrainingData(msgspec.Struct, frozen=True):
    """What to train on, and the held-out queries to judge the result by."""

    examples: tuple[TrainingExample, ...]
    holdouts: dict[str, Path] = {}  # domain -> BEIR folder
    domains: dict[str, Domain] = {}  # of the workspaces


def load_training_data(paths: Iterable[Path | str], *, domain: str | None = None) -> TrainingData:
    """The examples of all `paths`: workspaces, data files (`redapter.layouts.read_data`), or folders of such files.

    domain: what the data files' domain is called, or a domain file (a path ending in `.toml`), which gives their batch
    shape too, and triples their instruction; workspaces keep their own. None: each file's own.
    Raises InputError for a path that is none of them, a workspace without finished examples, a corpus that is
    gone or another one than the examples were made from.
    """
    named = load_domain(domain) if domain and domain.endswith(".toml") else domain
    examples: list[TrainingExample] = []
    holdouts: dict[str, Path] = {}
    domains: dict[str, Domain] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"there is no {path}. Give a workspace of `synthesize` or a file of training data.")
        if not is_workspace(path):
            examples += read_data(path, named)
            continue
        workspace = Workspace(path)
        for name in finished_domains(workspace):
            own, corpus, rows = read_workspace(workspace, name)
            examples += from_examples(rows, corpus, own)
            domains[name] = own
            if (beir := holdout_folder(workspace, name)) is not None:
                holdouts[name] = beir
    return TrainingData(tuple(examples), holdouts, domains)


def load_validation(paths: Iterable[Path | str]) -> dict[str, Collection]:
    """Domain -> queries to validate a training on, from all `paths`.

    A workspace or one of its `holdout` folders gives the held-out queries under the names of their domains; anything
    else is a BEIR folder or a folder of them. The words of published benchmarks are none of these: nothing is chosen
    on test queries. Raises InputError for what is no such folder, a workspace that holds nothing out, or two
    collections of one name.
    """
    return load_all([_held_out(path) or open_benchmark(path.resolve()) for path in map(Path, paths)])


def _held_out(path: Path) -> Benchmark | None:
    """The held-out queries of a workspace, or of one of its domains; None if `path` is neither."""
    folders: dict[str, Path] = {}
    if is_workspace(path):
        workspace = Workspace(path)
        found = ((name, holdout_folder(workspace, name)) for name in workspace.domains())
        folders = {name: folder for name, folder in found if folder is not None}
        if not folders:
            raise InputError(f"{path} holds no queries out. Synthesise with --holdout 0.1, or give a BEIR folder.")
    elif path.name == holdout.STAGE and (manifest := read_manifest(path)) is not None:
        folders = {manifest.domain: path}
    if not folders:
        return None
    return Benchmark(str(path), lambda: {name: read_beir(folder) for name, folder in folders.items()})


def is_workspace(path: Path) -> bool:
    """Whether `path` is a folder that `synthesize` works in."""
    return path.is_dir() and Workspace(path).journal_path.exists()


def finished_domains(workspace: Workspace) -> list[str]:
    """The domains whose examples are assembled. Raises InputError if there are none."""
    names = [
        name for name in workspace.domains() if read_manifest(workspace.stage_folder(name, assemble.STAGE)) is not None
    ]
    if not names:
        raise InputError(f"{workspace.path} holds no finished examples. Run `reasonembed synthesize` to its end first.")
    return names


def read_workspace(workspace: Workspace, name: str) -> tuple[Domain, Corpus, list[Example]]:
    """A domain of a workspace: the domain as it was then, its corpus, its examples.

    Raises InputError if the corpus is gone or changed.
    """
    selected = read_manifest(workspace.stage_folder(name, select.STAGE))
    assert selected is not None  # assembled examples have a selection
    corpus = corpus_of(selected)
    domain = load_domain(workspace.domain_folder(name) / DOMAIN_FILE)
    return domain, corpus, list(read_rows(workspace.stage_folder(name, assemble.STAGE), Example))


def holdout_folder(workspace: Workspace, name: str) -> Path | None:
    """The BEIR folder of the domain's held-out queries, None if nothing was held out."""
    folder = workspace.stage_folder(name, holdout.STAGE)
    manifest = read_manifest(folder)
    return folder if manifest is not None and "queries.jsonl" in manifest.outputs else None
