"""Prompts are text files beside this one; what a document says in them never becomes an order."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from reasonembed.files import sha256_json
from reasonembed.llm.chat import Message

_FIELD = re.compile(r"\{\{(\w+)\}\}")
_GAP = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*"  # what a reader does not see between < and a name
_MARK = re.compile(
    rf"""<(?=
        {_GAP}/?{_GAP}(?:document|query|score)\b            # our own marks
      | [|\uff5c][^<>\n]{{1,40}}[|\uff5c]>                  # <|im_start|> and its like, of chat templates
      | /?(?:s|bos|eos|start_of_turn|end_of_turn|<?SYS>?)>   # those of Gemma, Llama 2, Mistral
    )""",
    re.IGNORECASE | re.VERBOSE,
)


@cache
def load_prompt(name: str) -> str:
    """The text of `prompts/NAME.txt`, with fields written {{field}}."""
    return (resources.files("reasonembed.remixer") / "prompts" / f"{name}.txt").read_text(encoding="utf-8")


def prompt_hash(name: str) -> str:
    """A hash of the prompt's text: an input of the stage that uses it."""
    return sha256_json(load_prompt(name))


def fill(template: str, fields: dict[str, str]) -> tuple[Message, ...]:
    """One user message: the template, its fields filled in in one pass, so that values are never expanded.

    A line all of whose fields are empty is left out. Raises KeyError for a field that is not given.
    """
    lines = []
    for line in template.strip().split("\n"):
        names = _FIELD.findall(line)
        if not names or any(fields[name] for name in names):
            lines.append(_FIELD.sub(lambda match: fields[match.group(1)], line))
    return (Message(role="user", content="\n".join(lines)),)


def fenced(text: str) -> str:
    """`text` for use between <document> or <query> marks: nothing in it can close them or pass for a score.

    The opening `<` of such marks, of score tags, and of the control tokens by which chat templates part a conversation
    (servers read those in a message's text too) becomes `‹`; everything else is left as it stands.
    """
    return _MARK.sub("‹", text)
