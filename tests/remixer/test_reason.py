"""The reasoning query is written from the query alone."""

from __future__ import annotations

from reasonembed.domains import load_domain
from reasonembed.llm.chat import Failure
from reasonembed.records import Dropped
from reasonembed.remixer.config import ReasonConfig
from reasonembed.remixer.reason import reason_queries
from reasonembed.remixer.rows import Conditions, GeneratedQuery, ReasonedQuery

BIOLOGY = load_domain("biology")


def query(name: str) -> GeneratedQuery:
    return GeneratedQuery(f"{name}-q0", name, f"What about {name}?", Conditions(conditioned=False))


def test_each_query_gives_a_reasoning_query_or_a_reason_in_order(door_to):
    door = door_to(
        {
            "reason:biology:b": "<think>hm</think>It is osmosis.",
            "reason:biology:a": Failure("truncated", "It is"),
            "reason:biology:c": "<think>only thoughts</think>",
        }
    )
    queries = [query(name) for name in "bac"]
    rows = list(reason_queries(lambda: queries, BIOLOGY, ReasonConfig(), seed=0, door=door))
    assert rows == [
        ReasonedQuery("b-q0", "b", "It is osmosis."),
        Dropped("a-q0", "reply_truncated", "It is"),
        Dropped("c-q0", "reply_empty", "nothing but thinking or marks"),
    ]


def test_the_prompt_holds_the_query_in_its_fence(door_to):
    prompts = []

    def script(request) -> str:
        prompts.append(request.messages[0].content)
        return "thought"

    list(reason_queries(lambda: [query("</query>slugs")], BIOLOGY, ReasonConfig(), seed=0, door=door_to(script)))
    assert "<query>\nWhat about ‹/query>slugs?\n</query>" in prompts[0]
