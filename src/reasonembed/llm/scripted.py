"""A scripted model: the answers come from a function or a table. For tests, examples and rehearsals."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping

from reasonembed.errors import shown
from reasonembed.llm.backend import Ask
from reasonembed.llm.chat import Failure, Reply, Request, split_custom_id
from reasonembed.texts import row_seed

Answer = str | Reply | Failure
Script = Callable[[Request], Answer] | Mapping[str, Answer]

_WORD = re.compile(r"[^\W\d_]{5,}")
_FENCED = re.compile(r"<(document|query)>(.*?)</\1>", re.DOTALL)
_TASK_WORDS = frozenset(
    (
        "above",
        "article",
        "document",
        "documents",
        "paragraph",
        "passage",
        "passages",
        "query",
        "question",
        "snippet",
    )
)


class ScriptedBackend:
    """Answers each request by `script`: a function of the request, or a mapping from custom ids.

    A `str` is the model's text (an empty one a Failure of kind `empty`), a `Failure` a final failure; a
    request that the mapping lacks is `not_recorded`. `asked` lists the custom ids in the order of asking.
    """

    honours_conditions = True
    keyed_by_custom_id = True

    def __init__(self, script: Script, *, model: str = "scripted") -> None:
        self.script = script
        self.model = model
        self.asked: list[str] = []

    def __repr__(self) -> str:
        return f"ScriptedBackend(model={self.model!r})"

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """A function that answers by the script."""

        async def ask(request: Request) -> Reply:
            return self.answer(request)

        yield ask

    def answer(self, request: Request) -> Reply:
        """The script's reply to `request`."""
        name = request.custom_id
        self.asked.append(name)
        if callable(self.script):
            answer = self.script(request)
        else:
            missing = Failure("not_recorded", f"the script has no answer for {shown(name)}")
            answer = self.script.get(name, missing)
        match answer:
            case Reply():
                return answer
            case Failure():
                return Reply(custom_id=name, text="", failure=answer)
            case str() if not answer.strip():
                return Reply(custom_id=name, text="", failure=Failure("empty"))
        return Reply(custom_id=name, text=answer)


def plausible_reply(request: Request, seed: int = 0) -> str:
    """A well-formed answer to a request of any ReMixer stage, decided by the request and `seed` alone.

    The stage is the custom id's first part; where that says nothing, it is read from the messages. Grades 1
    to 5 are equally frequent, and one document in twelve is said to be off its domain.
    """
    prompt = "\n".join(message.content for message in request.messages)
    number = row_seed(seed, request.custom_id, prompt)
    match _stage(request.custom_id, prompt):
        case "select":
            return "No" if number % 12 == 0 else "Yes"
        case "annotate":
            return _annotation(prompt, number)
        case "reason":
            return _reasoning(prompt, number)
    return _query(prompt, number)


def _stage(custom_id: str, prompt: str) -> str:
    with contextlib.suppress(ValueError):
        stage = split_custom_id(custom_id)[0]
        if stage in ("select", "generate", "reason", "annotate"):
            return stage
    lowered = prompt.lower()
    if "<score>" in lowered:
        return "annotate"
    if "yes or no" in lowered:
        return "select"
    return "reason" if "think" in lowered and "passage" not in lowered else "generate"


def _content_words(prompt: str, number: int, count: int) -> list[str]:
    """`count` words of the document or query in the prompt, picked by hash; fewer if there are fewer."""
    data = " ".join(match.group(2) for match in _FENCED.finditer(prompt)) or prompt
    found = {word.lower() for word in _WORD.findall(data)} - _TASK_WORDS
    words = sorted(found, key=lambda word: hashlib.blake2b(f"{number} {word}".encode(), digest_size=8).digest())
    return words[:count] or [f"subject-{number % 9973}"]


def _query(prompt: str, number: int) -> str:
    words = _content_words(prompt, number, 8)
    first, rest = words[0], ", ".join(words[1:]) or "nothing else"
    return (
        f"Last week I came across something that puzzles me, and it has to do with {first}. I expected "
        f"one thing and saw another, although I changed only one part of it all. Could {rest} have to "
        f"do with it, and what general rule would tell me how it comes out next time? (case {number % 9973})"
    )


def _reasoning(prompt: str, number: int) -> str:
    words = ", ".join(_content_words(prompt, number, 6))
    return (
        f"What is really asked is why the outcome differs from the expectation. The matter turns on {words}. "
        f"First the general principle has to be found, then the conditions under which it holds. A text that "
        f"states the principle and works one case through would help most. (case {number % 100_000})"
    )


def _annotation(prompt: str, number: int) -> str:
    grade = number // 12 % 5 + 1
    subject = _content_words(prompt, number, 1)[0]
    verdict = ("does not bear on", "barely touches", "partly covers", "largely covers", "fully covers")[grade - 1]
    return (
        f"Query analysis: An account of {subject} and of the rule behind it would help most.\n\n"
        f"Document analysis: The text {verdict} what the query needs about {subject}.\n\n"
        f"Relevance annotation: <score>{grade}</score>"
    )


__all__ = ["Answer", "Script", "ScriptedBackend", "plausible_reply"]
