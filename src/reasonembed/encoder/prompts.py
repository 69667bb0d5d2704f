"""How an instruction stands before a query: one place, since a model is trained with it to the letter."""

from __future__ import annotations


def query_prompt(instruction: str) -> str:
    """What precedes a query's text (paper, Sec. 4.1); empty for an empty instruction. Documents stay bare."""
    return f"Instruct: {instruction}\nQuery: " if instruction else ""
