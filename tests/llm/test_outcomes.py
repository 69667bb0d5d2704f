"""What a status and a body mean, in the forms that real servers use."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest

from reasonembed.llm.chat import Reply
from reasonembed.llm.outcomes import Again, Hopeless, judge, parse_retry_after

OPENAI = '{"error": {"message": %s, "type": "invalid_request_error", "param": null, "code": %s}}'


def openai_error(message: str, code: str | None = None) -> bytes:
    return (OPENAI % (json.dumps(message), json.dumps(code))).encode()


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again_and_uses_an_attempt(status: int) -> None:
    outcome = judge(status, b"upstream\nfailed", "id")
    assert outcome == Again(f"HTTP {status}: upstream failed", busy=status in (503, 529))


def test_a_429_uses_no_attempt() -> None:
    assert judge(429, b"", "id", after_s=3.0) == Again("HTTP 429", 3.0, uses_attempt=False, busy=True)


def test_a_429_for_an_empty_account_is_hopeless() -> None:
    outcome = judge(429, openai_error("You exceeded your current quota", "insufficient_quota"), "id")
    assert isinstance(outcome, Hopeless) and "Top up" in outcome.remedy


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_hopeless_at_once(status: int) -> None:
    outcome = judge(status, openai_error("Incorrect API key"), "id")
    assert isinstance(outcome, Hopeless) and outcome.wants_key


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            404,
            openai_error("The model `x` does not exist or you do not have access to it.", "model_not_found"),
        ),
        (
            404,
            b'{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}',
        ),
        (404, b'{"error":{"message":"model \\"x\\" not found, try pulling it first","type":"api_error"}}'),
        (400, openai_error("model 'x' not found")),
    ],
)
def test_a_missing_model_is_hopeless(status: int, body: bytes) -> None:
    outcome = judge(status, body, "id")
    assert isinstance(outcome, Hopeless) and "model" in outcome.remedy


@pytest.mark.parametrize("body", [b'{"detail":"Not Found"}', b"404 page not found", b""])
def test_a_wrong_path_is_hopeless_and_the_remedy_names_v1(body: bytes) -> None:
    outcome = judge(404, body, "id")
    assert isinstance(outcome, Hopeless) and "/v1" in outcome.remedy


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
        "Unrecognized request argument supplied: top_k",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]",
    ],
)
def test_a_setting_that_the_server_does_not_know_is_hopeless_and_not_the_requests_fault(message: str) -> None:
    outcome = judge(400, openai_error(message), "id")
    assert isinstance(outcome, Hopeless) and "sampling" in outcome.remedy


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you want 5000 tokens (max_tokens).",
        ),
        (400, "The input is too long for this model, which does not support that."),
        (422, "messages: invalid"),
        (413, "request entity too large"),
    ],
)
def test_a_request_at_fault_is_a_final_failure_with_the_servers_words(status: int, message: str) -> None:
    outcome = judge(status, openai_error(message), "id")
    assert isinstance(outcome, Reply) and outcome.failure is not None
    assert outcome.failure.kind == "invalid"
    assert message in outcome.failure.detail


def test_a_prompt_that_a_filter_refuses_is_filtered() -> None:
    outcome = judge(400, openai_error("The prompt triggered a policy", "content_filter"), "id")
    assert isinstance(outcome, Reply) and outcome.failure is not None and outcome.failure.kind == "filtered"


def test_the_servers_words_are_clipped_and_made_plain() -> None:
    outcome = judge(400, openai_error("\x1b[31mred\n" + "x" * 100_000), "id")
    assert isinstance(outcome, Reply) and outcome.failure is not None
    assert "\x1b" not in outcome.failure.detail and len(outcome.failure.detail) < 500


@pytest.mark.parametrize("status", [301, 307, 402, 405, 204])
def test_any_other_status_is_hopeless(status: int) -> None:
    assert isinstance(judge(status, b"", "id"), Hopeless)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        (None, None),
        ("inf", None),
        ("nan", None),
        ("Mon, 99 Foo 2020 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now=1_000_000) == seconds
