"""S3 from the command line: a server that repeats the key in all it says, DEBUG on, and every byte that came out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from aiohttp import web

from reasonembed.llm.chat import Message, Request, Sampling
from reasonembed.llm.scripted import plausible_reply

CANARY = "sk-canary-7f3a9b-0123456789"


@pytest.fixture
def telltale(serve: Any) -> Any:
    """Answers as the scripted model does and repeats the key beside it; two tries fail, with the key in it."""

    async def handle(request: web.Request, body: dict[str, Any], number: int) -> web.StreamResponse:
        said = request.headers["Authorization"]
        if number in (2, 5):
            return web.Response(status=500, text=f"the key {said} is overworked", headers={"X-Key": said})
        name = request.headers["X-Request-Id"].partition(";")[0]
        messages = tuple(Message(one["role"], one["content"]) for one in body["messages"])
        text = plausible_reply(Request(name, messages, Sampling(), seed=body.get("seed", 0)))
        answer = text if text in ("Yes", "No") else f"You sent {said}. {text}"
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        return web.json_response({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 1}})

    return serve(handle)


def unpacked(path: Path) -> bytes:
    """A file's bytes, and what they hold in packed form."""
    raw = path.read_bytes()
    if path.suffix == ".zst":
        return raw + zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
    return raw


def test_no_byte_that_a_run_writes_or_says_holds_the_key(telltale: Any, tmp_path: Path) -> None:
    texts = {f"d{n}": f"salt and water in the slug number {n}, " * 8 for n in range(6)}
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(b"\n".join(msgspec.json.encode({"_id": key, "text": text}) for key, text in texts.items()))
    workspace, out = tmp_path / "runs/x", tmp_path / "out"

    def reasonembed(*words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "reasonembed", "-v", *map(str, words)],
            env={**os.environ, "MY_KEY": CANARY, "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr.replace(CANARY, "THE KEY")
        return done.stdout + done.stderr

    said = reasonembed("synthesize", corpus, "-w", workspace, "-m", f"{telltale.url}#m", "--api-key-env", "MY_KEY")
    assert "try 1" in said and "[key]" in said, "it was looked at with DEBUG on, and the server did tell"
    said += reasonembed("journal", workspace, "--export", out / "journal.jsonl")
    said += reasonembed("journal", workspace, "--check") + reasonembed("show", workspace)
    said += reasonembed("stats", workspace, "--out", out)
    assert CANARY not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20 and "[key]" in (out / "journal.jsonl").read_text()
    assert not [path for path in files if CANARY.encode() in unpacked(path)]
