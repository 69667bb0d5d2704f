"""What goes to the hub, byte for byte, through the real client library and a real HTTP server that plays the hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reasonembed.errors import ConfigError, DamageError, InputError
from reasonembed.pocket import pocket_folder
from reasonembed.workflow.push import plan_lines, plan_push
from reasonembed.workflow.synthesis import synthesize

TOKEN = "hf_" + "canaryCANARY"


class Hub(ThreadingHTTPServer):
    """The four endpoints that an upload needs. `repos`: name -> private; `files`: what was committed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repos: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.seen: list[str] = []
        self.tokens: set[str] = set()
        self.refuse = 0  # a status for every commit

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        name = "/".join(self.path.split("/")[3:5])
        if name in self.server.repos:
            return self._reply(200, {"id": name, "private": self.server.repos[name], "siblings": []})
        return self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self._body()
        server, path = self.server, self.path.split("?")[0]
        server.seen.append(path)
        server.tokens.add(self.headers.get("Authorization", ""))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            server.repos.setdefault(name, asked.get("visibility") == "private" or asked.get("private") is True)
            return self._reply(200, {"url": f"{server.url}/{asked['type']}s/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._reply(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._reply(200, {"files": files})
        if server.refuse:
            return self._reply(server.refuse, {"error": "this token may not write"})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        place = path.removeprefix("/api").removeprefix("/models").removesuffix("/main")
        return self._reply(200, {"commitUrl": f"{server.url}{place}/{'a' * 40}", "commitOid": "a" * 40})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**(headers or {}), "Content-Length": str(len(raw))}.items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished pocket domains."""
    place = tmp_path_factory.mktemp("push") / "w"
    for domain in ("biology", "pony"):
        folder = pocket_folder(domain)
        synthesize(folder, domain=domain, workspace=place, model="recorded:pocket", sources=folder / "recorded.jsonl")
    return place


def pushed(hub: Hub, *arguments: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, DEBUG on, with the local server as its hub."""
    pytest.importorskip("huggingface_hub")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token, "HF_DEBUG": "1"}
    if not token:
        del environment["HF_TOKEN"]
    command = [sys.executable, "-m", "reasonembed", "-v", "push", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_a_workspace_goes_as_a_private_data_set_with_one_card_and_every_released_byte(
    hub: Hub, workspace: Path
) -> None:
    done = pushed(hub, workspace, "me/data", "--license", "cc-by-4.0")
    assert done.returncode == 0, done.stderr
    assert hub.repos == {"me/data": True}
    assert set(hub.files) == {"README.md", "biology-formatted.jsonl", "pony-formatted.jsonl"}
    for domain in ("biology", "pony"):
        name = f"{domain}-formatted.jsonl"
        assert hub.files[name] == (workspace / domain / "release" / name).read_bytes()
        assert f"{name}" in done.stdout and f"{len(hub.files[name]):,} bytes" in done.stdout
    card = hub.files["README.md"].decode()
    assert 'license: "cc-by-4.0"' in card and card.count("config_name") == 2 and str(workspace) not in card
    assert hub.seen == [
        "/api/datasets/me/data", "/api/repos/create", "/api/validate-yaml",
        "/api/datasets/me/data/preupload/main", "/api/datasets/me/data/commit/main",
    ], "nothing else is asked or told"  # fmt: skip


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, workspace: Path) -> None:
    done = pushed(hub, workspace, "me/data")
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in raw for raw in hub.files.values())
    hub.refuse = 403
    refused = pushed(hub, workspace, "me/data")
    assert refused.returncode == 1 and "the hub refused (403: this token may not write)" in refused.stderr
    assert TOKEN not in refused.stdout + refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: the hub refused")


def test_without_a_token_in_the_environment_nothing_is_asked(hub: Hub, workspace: Path) -> None:
    done = pushed(hub, workspace, "me/data", token="")
    assert done.returncode == 2 and "HF_TOKEN is not set" in done.stderr and hub.seen == []


def test_a_dry_run_names_files_and_sizes_and_asks_nothing(hub: Hub, workspace: Path) -> None:
    done = pushed(hub, workspace, "me/data", "--dry-run", token="")
    assert done.returncode == 0, done.stderr
    size = (workspace / "pony/release/pony-formatted.jsonl").stat().st_size
    assert f"pony-formatted.jsonl  {size:>17,} bytes".replace("  ", " ").split() == [
        part for line in done.stdout.splitlines() if "pony" in line for part in line.split()
    ]
    assert "a private data set" in done.stdout and "licence is not set" in done.stdout
    assert hub.seen == [] and hub.repos == {}


def test_a_repository_that_is_public_already_takes_nothing_unasked(hub: Hub, workspace: Path) -> None:
    hub.repos["me/data"] = False
    refused = pushed(hub, workspace, "me/data")
    assert refused.returncode == 2 and "is there already and is public" in refused.stderr and hub.files == {}
    assert pushed(hub, workspace, "me/data", "--public").returncode == 0 and hub.files


def test_a_hub_that_cannot_be_reached_is_said_so(workspace: Path) -> None:
    gone = Hub()
    gone.server_close()
    done = pushed(gone, workspace, "me/data")
    assert done.returncode == 1 and "could not be reached" in done.stderr and TOKEN not in done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder laid out as `train` leaves it, with some things beside that must not go."""
    folder = tmp_path / "model"
    files = {
        "modules.json": "[]",
        "README.md": "---\nlibrary_name: sentence-transformers\n---\n",
        "model.safetensors": "weights" * 1000,
        "1_Pooling/config.json": "{}",
        "adapter/adapter_config.json": json.dumps({"base_model_name_or_path": "/srv/models/base", "r": 4}),
        "adapter/adapter_model.safetensors": "adapter",
        "adapter/README.md": "base_model: /srv/models/base",
        ".env": "SECRET=1",
        "pytorch_model.bin": "pickle",
        "custom.py": "import os",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "outside.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "outside.json")
    return folder


def test_a_model_folder_goes_as_a_model_without_links_hidden_files_code_and_pickles(hub: Hub, model: Path) -> None:
    done = pushed(hub, model, "me/model")
    assert done.returncode == 0, done.stderr
    assert set(hub.files) == {
        "modules.json", "README.md", "model.safetensors", "1_Pooling/config.json",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    }  # fmt: skip
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).digest()
    assert hashlib.sha256(hub.files["model.safetensors"]).digest() == weights
    assert json.loads(hub.files["adapter/adapter_config.json"]) == {"base_model_name_or_path": "base", "r": 4}
    assert "left out: .env, adapter/README.md, custom.py, link.json, pytorch_model.bin" in done.stdout
    assert any("/models/me/model/commit/" in path for path in hub.seen)


def test_a_file_that_names_the_home_folder_stops_the_upload(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    (model / "config.json").write_text('{"_name_or_path": "/home/someone/base"}')
    with pytest.raises(InputError, match="names a folder under /home/someone"):
        plan_push(model, "me/model")


def test_released_data_that_was_altered_is_not_pushed(tmp_path: Path) -> None:
    folder = pocket_folder("pony")
    synthesize(
        folder, domain="pony", workspace=tmp_path / "w", model="recorded:pocket", sources=folder / "recorded.jsonl"
    )
    path = tmp_path / "w/pony/release/pony-formatted.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamageError, match="not what was written"):
        plan_push(tmp_path / "w", "me/data")


@pytest.mark.parametrize("repo", ["", "a/b/c", "me/../data", "https://host/me/data", "me/da ta"])
def test_a_name_that_is_none_is_refused(workspace: Path, repo: str) -> None:
    with pytest.raises(ConfigError, match="no name of a repository"):
        plan_push(workspace, repo)


def test_what_is_neither_data_nor_a_model_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="neither a workspace"):
        plan_push(tmp_path, "me/x")
    with pytest.raises(ConfigError, match="for data only"):
        plan_push(model, "me/x", license="mit")


def test_the_plan_adds_up(workspace: Path) -> None:
    plan = plan_push(workspace, "me/data", public=True)
    lines = list(plan_lines(plan))
    assert "a public data set" in lines[0]
    assert f"3 files, {sum(one.size_bytes for one in plan.files):,} bytes" in lines
