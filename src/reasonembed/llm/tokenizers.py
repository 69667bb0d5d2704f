"""How many tokens a prompt has, by the model's own tokenizer where that lies on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reasonembed.errors import InputError
from reasonembed.llm.chat import Request


def load_chat_tokenizer(folder: Path | str, *, revision: str | None = None, local_only: bool = True) -> Any:
    """The transformers tokenizer of a model. Raises InputError if it cannot be loaded; runs none of its code."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder, revision=revision or "main", trust_remote_code=False, local_files_only=local_only
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"transformers cannot load the tokenizer of {folder}: {error}") from error


def prompt_ids(tokenizer: Any, request: Request) -> list[int]:
    """The prompt as the model reads it: the tokenizer's chat template, with the opening of the answer."""
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    thinking = request.sampling.thinking
    kwargs = {} if thinking is None else {"enable_thinking": thinking}
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # the template writes them itself


def prompt_counter(folder: str) -> Callable[[Request], int] | None:
    """Counts the tokens of prompts with the tokenizer in a local folder; None where there is none to be had."""
    if not (Path(folder) / "tokenizer_config.json").is_file() or importlib.util.find_spec("transformers") is None:
        return None
    tokenizer = load_chat_tokenizer(folder)
    if tokenizer.chat_template is None:
        return lambda request: sum(len(tokenizer(message.content)["input_ids"]) for message in request.messages)
    return lambda request: len(prompt_ids(tokenizer, request))


__all__ = ["load_chat_tokenizer", "prompt_counter", "prompt_ids"]
