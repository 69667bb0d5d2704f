"""Our model folders in `mteb` 2.x: through sentence-transformers, prompted by task, their training data named."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from reasonembed.domains import load_domain
from reasonembed.encoder.folder import find_model, fingerprint, read_model_folder
from reasonembed.encoder.prompts import query_prompt
from reasonembed.errors import MissingExtra
from reasonembed.evaluate.bright import LONG_DOMAINS
from reasonembed.evaluate.mteb_export import task_name
from reasonembed.evaluate.published import published_tables
from reasonembed.redapter.receipt import MANIFEST_FILE, read_manifest

logger = logging.getLogger(__name__)


def mteb_model(
    path: Path | str, *, name: str | None = None, trained_on: Collection[str] | None = None, device: str | None = None
) -> Any:
    """The model as `mteb.evaluate` takes it.

    name: as mteb calls it, `organisation/model`; `reasonembed/FOLDER` if None.  trained_on: the mteb tasks on whose
    data the model's base was trained, an empty list for none; None takes what mteb knows of the base. Where that is
    nothing, `training_datasets` stays unknown, since a partial list would pass for a whole one.
    Training data made for a domain that bears the name of one of BRIGHT's or R2MED's counts as the benchmark's: its
    corpus may have been the benchmark's own.
    Queries get the model's prompt for the task's domain, else our instruction for it, else its `query` prompt.
    Raises MissingExtra without mteb, InputError for a folder that is no model or holds code or pickles,
    DamageError for a training manifest that cannot be read: what it says must not be lost in silence.
    """
    try:
        from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper
    except ImportError as error:
        raise MissingExtra("Running a model in mteb needs mteb. Install it with: pip install 'mteb>=2'") from error
    from sentence_transformers import SentenceTransformer

    root = find_model(path)
    folder = read_model_folder(root)  # refuses what we would not load ourselves
    training = read_manifest(root) if (root / MANIFEST_FILE).is_file() else None
    base = training.receipt.base if training else ""
    model = SentenceTransformer(str(root), device=device, local_files_only=True)
    model.prompts = dict(task_prompts(folder.prompts))
    wrapper = SentenceTransformerEncoderWrapper(model)
    wrapper.mteb_model_meta = ModelMeta.from_sentence_transformer_model(model).model_copy(
        update={
            "name": name or f"reasonembed/{root.resolve().name}",
            "revision": fingerprint(root)[:12],
            "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "use_instructions": any(model.prompts.values()),
            "adapted_from": base if "/" in base else None,
            "training_datasets": _training_datasets(base, training.domains if training else (), trained_on),
        }
    )
    return wrapper


def task_prompts(prompts: Mapping[str, str]) -> dict[str, str]:
    """A model's prompts under the names that mteb looks for: one for each task of BRIGHT and R2MED, and the general.

    A model without a `query` prompt was trained on bare queries: it gets no instructions.
    """
    found = {"query": prompts.get("query", ""), "document": prompts.get("document", "")}
    if not found["query"]:
        return found
    tables = published_tables()
    for domain in tables.bright.domains:
        prompt = prompts.get(domain) or query_prompt(load_domain(domain).instruction)
        found[f"{task_name('bright', domain)}-query"] = prompt
        if domain in LONG_DOMAINS:  # "documents" for "passages" there
            found[f"{task_name('bright-long', domain)}-query"] = prompt.replace("passages", "documents")
    for domain in tables.r2med.domains:
        found[f"{task_name('r2med', domain)}-query"] = query_prompt(tables.r2med.instruction(domain))
    return found


def _training_datasets(base: str, domains: Iterable[str], trained_on: Collection[str] | None) -> set[str] | None:
    ours = {task for domain in domains for task in _tasks_of(domain)}
    of_base = set(trained_on) if trained_on is not None else _known_to_mteb(base)
    if of_base is None:
        logger.warning(
            "What the base model %s was trained on is not known, so mteb is told that the training data is unknown. "
            "Name the mteb tasks in it with trained_on.%s",
            base or "(unknown)",
            f" Of our own training: {', '.join(sorted(ours))}." if ours else "",
        )
        return None
    return of_base | ours


def _tasks_of(domain: str) -> list[str]:
    names = [task_name(benchmark, domain) for benchmark in ("bright", "bright-long", "r2med")]
    return [name for name in names if name]


def _known_to_mteb(base: str) -> set[str] | None:
    if "/" not in base:
        return None
    import mteb

    try:
        known = mteb.get_model_meta(base, fetch_from_hf=False).training_datasets
    except (KeyError, ValueError):
        return None
    return None if known is None else set(known)
