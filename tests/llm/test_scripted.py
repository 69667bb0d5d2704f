"""The scripted model in process and over HTTP, where the official client is the judge of the wire format."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import openai
import pytest
from aiohttp import web

from reasonembed.llm.chat import Failure, Message, Reply, Request, Sampling, Usage, custom_id
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.llm.scripted_server import make_app


def ask(name: str, prompt: str = "Osmosis moves water through a membrane.") -> Request:
    return Request(name, (Message("user", prompt),), Sampling(), seed=0)


def test_a_script_is_a_function_or_a_table() -> None:
    assert ScriptedBackend(lambda request: request.custom_id.upper()).answer(ask("a:b")).text == "A:B"
    whole = Reply("a", "text", Usage(1, 2), thinking="hm")
    backend = ScriptedBackend({"a": whole, "b": "text", "c": Failure("refused", "no"), "d": "  "})
    assert backend.answer(ask("a")) == whole
    assert backend.answer(ask("b")).text == "text"
    failures = [backend.answer(ask(name)).failure for name in "cde"]
    assert [failure and failure.kind for failure in failures] == ["refused", "empty", "not_recorded"]
    assert backend.asked == ["a", "b", "c", "d", "e"]


def test_plausible_replies_are_well_formed_for_each_stage() -> None:
    grades: Counter[str] = Counter()
    for number in range(500):
        annotation = plausible_reply(ask(custom_id("annotate", "any", f"s{number}-q0", "d")))
        (grade,) = re.findall(r"<score>([1-5])</score>", annotation)
        grades[grade] += 1
        assert plausible_reply(ask(f"select:any:{number}")) in ("Yes", "No")
    assert set(grades) == set("12345") and min(grades.values()) > 60
    query = plausible_reply(ask("generate:any:1"))
    assert re.search("osmosis|moves|water|membrane", query) and "passage" not in query
    assert plausible_reply(ask("reason:any:1")) != query


def test_a_plausible_reply_depends_on_request_and_seed_alone() -> None:
    request = ask("generate:any:1")
    assert plausible_reply(request) == plausible_reply(ask("generate:any:1"))
    others = {
        plausible_reply(request, seed=1),
        plausible_reply(ask("generate:any:2")),
        plausible_reply(ask("generate:any:1", "Kelp.")),
    }
    assert len(others) == 3 and plausible_reply(request) not in others


def test_without_a_custom_id_the_stage_is_read_from_the_prompt() -> None:
    assert "<score>" in plausible_reply(ask("", "Grade it between <score> tags."))
    assert plausible_reply(ask("", "Does it belong to biology? Answer Yes or No.")) in ("Yes", "No")
    assert plausible_reply(ask("", "Write a query for this passage.")).endswith(")")


def test_an_empty_prompt_in_another_script_gets_an_answer() -> None:
    assert plausible_reply(ask("generate:any:1", "")) and plausible_reply(ask("generate:any:1", "水は膜を通る"))


@pytest.fixture
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "reasonembed.llm.scripted_server", "--model", "tiny", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


def test_the_official_client_and_ours_get_the_same_answers(url: str, journal: Journal) -> None:
    request = ask("annotate:any:é:1-q0:d#2")
    with open_door(url, journal=journal) as door:
        assert door.model == "tiny"
        ((_, ours),) = list(door.replies(lambda: [request], label="x"))
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        chat = functools.partial(
            client.chat.completions.create,
            messages=[{"role": "user", "content": request.messages[0].content}],
        )
        theirs = chat(model="tiny", extra_headers={"X-Request-Id": "annotate:any:%C3%A9:1-q0:d#2"})
        assert theirs.choices[0].message.content == ours.text == plausible_reply(request, seed=3)
        assert theirs.choices[0].finish_reason == "stop"
        assert theirs.usage is not None and theirs.usage.total_tokens > 0
        assert chat(model="tiny").choices[0].message.content == chat(model="tiny").choices[0].message.content
        again = chat(model="tiny", extra_headers={"X-Request-Id": "annotate:any:%C3%A9:1-q0:d#2;try=2"})
        assert again.choices[0].message.content == ours.text, "a retry is the same request"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            chat(model="other")
        with pytest.raises(openai.BadRequestError, match="cannot be read"):
            client.chat.completions.create(model="tiny", messages=[{"role": "wizard", "content": "x"}])  # type: ignore


def test_failures_and_the_log_come_over_the_wire_as_they_are(journal: Journal) -> None:
    """What a script says and what the door gets through HTTP are the same, in kind and text."""
    script = {
        "x:y:0": Reply("x:y:0", "yes", Usage(5, 6), thinking="hm"),
        "x:y:1": Failure("truncated"),
        "x:y:2": Failure("filtered"),
        "x:y:3": Failure("refused", "I will not."),
        "x:y:4": "",
        "x:y:5": Failure("invalid", "too long for me"),
    }
    log = io.BytesIO()
    requests = [ask(name, f"prompt {name}") for name in script]
    with (
        _in_thread(make_app(ScriptedBackend(script, model="s"), log=log)) as url,
        open_door(url, journal=journal) as door,
    ):
        replies = [reply for _, reply in door.replies(lambda: requests, label="x")]
    assert replies[0] == script["x:y:0"]
    kinds = [reply.failure.kind if reply.failure else None for reply in replies]
    assert kinds == [None, "truncated", "filtered", "refused", "empty", "invalid"]
    in_process = ChatDoor(ScriptedBackend(script), journal).replies(lambda: requests[:5], label="x")
    assert [reply.failure and reply.failure.kind for _, reply in in_process] == kinds[:5]
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert sorted(line["custom_id"] for line in lines) == sorted(script)
    assert len({line["sha256"] for line in lines}) == len(script)


class _in_thread:
    """An aiohttp application behind a URL, for the length of the block."""

    def __init__(self, app: web.Application) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> str:
        self.thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)

    async def _start(self) -> str:
        self.runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
