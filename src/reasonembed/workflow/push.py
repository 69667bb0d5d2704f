"""To the Hugging Face hub: a workspace's released data as a data set, a trained model's folder as a model.

What goes is decided first (`plan_push`) and can be looked at; nothing else is uploaded. Repositories are private
unless asked otherwise, and the token comes from the environment alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from reasonembed.errors import ConfigError, InputError, MissingExtra, ReasonEmbedError, shown
from reasonembed.llm.endpoint import read_key
from reasonembed.manifest import check_outputs, read_manifest
from reasonembed.remixer import release
from reasonembed.remixer.card import CARD_FILE, UNKNOWN_LICENSE, dataset_card, domain_facts, public_name
from reasonembed.workflow.training_data import is_workspace
from reasonembed.workspace import Workspace

TOKEN_ENV = "HF_TOKEN"

RepoType = Literal["dataset", "model"]

_REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_MODEL_SUFFIXES = (".json", ".jsonl", ".md", ".model", ".safetensors", ".txt")
_TEXT_SUFFIXES = (".json", ".md", ".txt")
_ADAPTER_CARD = "adapter/README.md"  # peft's template, which names the base by its local path and says nothing else
_ADAPTER_CONFIG = "adapter/adapter_config.json"


class Upload(msgspec.Struct, frozen=True):
    """One file to upload: its name in the repository, and its content or where that lies."""

    name: str
    content: bytes | Path

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


class PushPlan(msgspec.Struct, frozen=True):
    """What goes where. `left_out`: files of the folder that do not go."""

    repo: str
    repo_type: RepoType
    files: tuple[Upload, ...]
    public: bool = False
    left_out: tuple[str, ...] = ()
    license: str = ""  # of a data set

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(one.size_bytes for one in self.files)


def plan_push(path: Path | str, repo: str, *, public: bool = False, license: str | None = None) -> PushPlan:
    """What `push` would upload; reads files and changes nothing.

    path: a workspace whose release is finished, or a model folder.  repo: OWNER/NAME, or NAME for one's own.
    license: of a workspace's data; None takes what `synthesize --license` said.
    Raises InputError for what is neither or names local folders, DamageError for released files that were altered,
    ConfigError for a `repo` that cannot be one.
    """
    path = Path(path)
    if not _REPO.fullmatch(repo):
        raise ConfigError(f"{shown(repo)} is no name of a repository. Write OWNER/NAME.")
    if is_workspace(path):
        chosen, files = _data_files(Workspace(path), license)
        return PushPlan(repo, "dataset", files, public, license=chosen)
    if not (path / "modules.json").is_file():
        raise InputError(f"{path} is neither a workspace of `synthesize` nor a model folder. Give one of the two.")
    if license is not None:
        raise ConfigError("a licence is set for data only; a model's stands in its card. Leave --license out.")
    files, left_out = _model_files(path)
    return PushPlan(repo, "model", files, public, left_out)


def push(plan: PushPlan) -> str:
    """Upload the files in one commit; gives the address of the repository, which is made if it is not there.

    The token is that of the environment variable HF_TOKEN; it is not logged and stands in no error. Raises ConfigError
    without a token, or if the repository is public and the plan is not; MissingExtra without huggingface_hub;
    ReasonEmbedError if the hub refuses or cannot be reached.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingExtra("Uploading needs huggingface_hub. Install it with: pip install 'reasonembed[hub]'")
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=read_key(TOKEN_ENV))
    try:
        _refuse_public(api, plan)
        url = api.create_repo(plan.repo, repo_type=plan.repo_type, private=not plan.public, exist_ok=True)
        api.create_commit(
            repo_id=url.repo_id,
            repo_type=plan.repo_type,
            operations=[CommitOperationAdd(one.name, one.content) for one in plan.files],
            commit_message=f"Upload {len(plan.files)} files with reasonembed",
        )
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        said = f": {error.server_message}" if error.server_message else ""
        raise ReasonEmbedError(
            f"the hub refused ({status}{said}). Check that {TOKEN_ENV} may write to {plan.repo}, then run the same "
            f"command again."
        ) from error
    except _transport_errors() as error:
        raise ReasonEmbedError(
            f"the hub at {api.endpoint} could not be reached: {error}. Nothing was committed; try again later."
        ) from error
    return str(url)


def _transport_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub's HTTP library raises, whichever that is: its own error derives from it."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)), OSError)


def plan_lines(plan: PushPlan) -> Iterator[str]:
    """What would be uploaded, a line a file."""
    kind = "data set" if plan.repo_type == "dataset" else "model"
    yield f"to {plan.repo}, a {'public' if plan.public else 'private'} {kind}:"
    width = max(len(one.name) for one in plan.files)
    for one in plan.files:
        yield f"  {one.name:<{width}}  {one.size_bytes:>15,} bytes"
    yield f"{len(plan.files)} files, {plan.size_bytes:,} bytes"
    if plan.left_out:
        yield f"left out: {', '.join(plan.left_out)}"
    if plan.license == UNKNOWN_LICENSE:
        yield "the licence is not set; the card says so. Set it with --license, e.g. --license cc-by-4.0."


def _refuse_public(api: Any, plan: PushPlan) -> None:
    """What is meant to be private must not land in a repository that is public already."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.repo_info(plan.repo, repo_type=plan.repo_type)
    except RepositoryNotFoundError:
        return
    if not found.private and not plan.public:
        raise ConfigError(
            f"{plan.repo} is there already and is public. Add --public if you mean that, or choose another."
        )


def _data_files(workspace: Workspace, license: str | None) -> tuple[str, tuple[Upload, ...]]:
    """The licence, and the card with the released file of each domain."""
    files, licenses, facts = [], set(), []
    for name in workspace.domains():
        folder = workspace.stage_folder(name, release.STAGE)
        if (manifest := read_manifest(folder)) is None:
            continue
        check_outputs(folder, manifest)
        licenses.add(str(manifest.config.get("license", UNKNOWN_LICENSE)))
        facts.append(domain_facts(workspace, name))
        files.append(Upload(release.release_name(name), folder / release.release_name(name)))
    if not files:
        raise InputError(f"{workspace.path} has released nothing yet. Run `reasonembed synthesize` to the end first.")
    if license is None and len(licenses) > 1:
        raise ConfigError(
            f"the domains have different licences, {', '.join(sorted(licenses))}. Give one with --license."
        )
    chosen = license or licenses.pop()
    return chosen, (Upload(CARD_FILE, dataset_card(facts, license=chosen).encode()), *files)


def _model_files(folder: Path) -> tuple[tuple[Upload, ...], tuple[str, ...]]:
    """The files of a model folder that go, and the names of those that do not: links, hidden ones, other kinds."""
    files, left_out = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        hidden = any(part.startswith(".") for part in name.split("/"))
        link = any(part.is_symlink() for part in (path, *path.parents) if part != folder and folder in part.parents)
        if hidden or link or path.suffix not in _MODEL_SUFFIXES or name == _ADAPTER_CARD:
            left_out.append(name)
            continue
        content = _adapter_config(path) if name == _ADAPTER_CONFIG else path
        _refuse_local_paths(name, content)
        files.append(Upload(name, content))
    return tuple(files), tuple(left_out)


def _adapter_config(path: Path) -> bytes:
    """peft's settings, with the base model named without the folder that it lay in."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: broken JSON ({error}). Copy the model folder again.") from error
    config["base_model_name_or_path"] = public_name(str(config.get("base_model_name_or_path", "")))
    return json.dumps(config, indent=2).encode()


def _refuse_local_paths(name: str, content: bytes | Path) -> None:
    home = os.path.expanduser("~")  # noqa: PTH111 (Path.home() raises where there is none)
    if not name.endswith(_TEXT_SUFFIXES) or len(home) < 2 or not home.startswith("/"):
        return
    raw = content.read_bytes() if isinstance(content, Path) else content
    if f"{home}/".encode() in raw:
        raise InputError(f"{name} names a folder under {home}, which is nobody's business. Edit it, then push again.")


__all__ = ["TOKEN_ENV", "PushPlan", "Upload", "plan_lines", "plan_push", "push"]
