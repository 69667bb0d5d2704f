"""Agreement from paths: labels of a workspace or a file against another's, or against qrels."""

from __future__ import annotations

from pathlib import Path

from reasonembed.analyze.agreement import POSITIVE, Comparison, Grades, compare, grades_of_labels, grades_of_qrels
from reasonembed.corpora import JSONL_SUFFIXES
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.files import read_jsonl
from reasonembed.manifest import read_manifest, read_rows
from reasonembed.records import Label
from reasonembed.remixer import annotate
from reasonembed.trec import read_trec_qrels
from reasonembed.workflow.training_data import is_workspace
from reasonembed.workspace import Workspace


def measure_agreement(
    labels: Path, reference: Path, *, positive: int = POSITIVE, reference_positive: int | None = None
) -> Comparison:
    """The agreement of labels with a reference.

    Both: a workspace, JSONL rows of `Label`, TREC qrels, a BEIR folder or a folder of them. Qrels have another
    scale than labels, so that only relevance is compared; relevant in qrels is a grade of 1 or more by default.
    """
    ours, graded = read_grades(labels)
    theirs, reference_graded = read_grades(reference)
    return compare(
        ours,
        theirs,
        positive=positive if graded else 1,
        reference_positive=reference_positive or (positive if reference_graded else 1),
        same_scale=graded == reference_graded,
    )


def read_grades(path: Path) -> tuple[Grades, bool]:
    """The grades under `path`, and whether they are an annotator's (1 to 5). Raises InputError where there are none."""
    if not path.exists():
        raise InputError(f"there is no {path}. Give a workspace, a JSONL file of labels, or qrels.")
    if is_workspace(path):
        return grades_of_labels(_workspace_labels(Workspace(path))), True
    if path.is_dir():
        merged: Grades = {}
        for collection in load_collections(path).values():
            merged |= grades_of_qrels(collection.qrels)
        return merged, False
    if path.name.endswith(JSONL_SUFFIXES):
        return grades_of_labels(read_jsonl(path, Label)), True
    return grades_of_qrels(read_trec_qrels(path)), False


def _workspace_labels(workspace: Workspace) -> list[Label]:
    folders = [workspace.stage_folder(domain, annotate.STAGE) for domain in workspace.domains()]
    labels = [label for folder in folders if read_manifest(folder) for label in read_rows(folder, Label)]
    if not labels:
        raise InputError(f"{workspace.path} holds no finished annotation. Run `reasonembed synthesize` first.")
    return labels
