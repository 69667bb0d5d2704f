"""Parsing of the wire format: an answer, or a failure with its name, or a body that is no answer at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.replies import BrokenResponse, parse_response, split_thinking


def parsed(content: Any = "text", finish_reason: Any = "stop", **message: Any) -> Reply:
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content} | message,
    }
    return parse_response(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5}}).encode(), "id")


def kind(reply: Reply) -> str:
    assert reply.failure is not None and reply.text == ""
    return reply.failure.kind


def test_an_answer_is_its_stripped_text_and_its_usage() -> None:
    assert parsed(" a text\n") == Reply("id", "a text", Usage(prompt_tokens=5))


@pytest.mark.parametrize(
    ("content", "text", "thinking"),
    [
        ("<think>hm</think>\n\nyes", "yes", "hm"),
        ("<think>\n</think>yes", "yes", ""),
        ("it began in the prompt</think> yes", "yes", "it began in the prompt"),
        ("<think>a <think>b</think> c</think> yes", "yes", "c\n\na <think>b"),
        ("<think>a</think>yes<think>b</think>", "yes", "a\n\nb"),
        ("no tags: a < b", "no tags: a < b", ""),
    ],
)
def test_thinking_is_taken_out_of_the_text(content: str, text: str, thinking: str) -> None:
    reply = parsed(content)
    assert (reply.text, reply.thinking) == (text, thinking)


def test_a_score_inside_the_thinking_never_reaches_the_text() -> None:
    assert "5" not in parsed("<think>perhaps <score>5</score></think><score>2</score>").text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own_is_kept(field: str) -> None:
    assert parsed("yes", **{field: "because "}).thinking == "because"
    assert parsed("yes", **{field: {"odd": 1}}).text == "yes"


def test_text_in_parts_is_joined() -> None:
    assert parsed([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]).text == "ab"


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("truncated", {"content": "it goes on and", "finish_reason": "length"}),
        ("truncated", {"content": "<think>on and on", "finish_reason": "length"}),
        ("empty", {"content": "<think>never closed"}),
        ("empty", {"content": "<score>4</score><think>or not"}),
        ("empty", {"content": "<think>only this</think>  "}),
        ("empty", {"content": ""}),
        ("empty", {"content": None}),
        ("filtered", {"content": "", "finish_reason": "content_filter"}),
        ("refused", {"content": None, "refusal": "I cannot."}),
    ],
)
def test_what_is_no_usable_text_is_a_failure_with_its_name(expected: str, arguments: dict[str, Any]) -> None:
    assert kind(parsed(**arguments)) == expected


def test_a_failure_keeps_the_end_of_the_text_to_look_at() -> None:
    reply = parsed("x" * 5000 + " the end", "length")
    assert reply.failure is not None
    assert reply.failure.detail.endswith("the end") and len(reply.failure.detail) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>502</html>",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
        b'{"choices": [{"message": {"content": "half',
        b'{"choices": "none"}',
        b'{"error": {"message": "overloaded"}}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": "cut"}, "finish_reason": "abort"}]}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_completion_is_broken_and_not_a_reply(body: bytes) -> None:
    with pytest.raises(BrokenResponse):
        parse_response(body, "id")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    with pytest.raises(BrokenResponse):
        parse_response(body, "id")


@pytest.mark.parametrize("tokens", [-1, 10**30, None])
def test_an_impossible_token_count_does_not_lose_the_answer(tokens: int | None) -> None:
    body = {
        "choices": [{"message": {"content": "yes"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": tokens},
    }
    assert parse_response(json.dumps(body).encode(), "id") == Reply("id", "yes", Usage(3, 0))


@given(st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</th", "a", " "])).map("".join))
def test_no_tag_is_left_in_the_text(text: str) -> None:
    split = split_thinking(text)
    assert "<think>" not in split.text and "</think>" not in split.text
    assert split.text == split.text.strip()
