"""How many words a query shares with a text: the sign of trivial training data (the paper, sections 1 and 5).

Words are those of `texts.words`, unstemmed: what a model could match by form alone. English function words
are left out by default (our choice: every text holds them, so they would hide the differences); give
`stop_words=()` for the plain measure, as the paper's contamination figure has it, or another language's list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

from reasonembed.texts import words

FUNCTION_WORDS = frozenset(
    (
        "a", "an", "the", "this", "that", "these", "those", "each", "every", "either", "neither",
        "both", "all", "any", "some", "no", "none", "such", "other", "another", "same", "i", "me", "my",
        "mine", "myself", "we", "us", "our", "ours", "ourselves", "you", "your", "yours", "yourself",
        "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its", "itself", "they",
        "them", "their", "theirs", "themselves", "one", "who", "whom", "whose", "which", "what", "when",
        "where", "why", "how", "am", "is", "are", "was", "were", "be", "been", "being", "do", "does",
        "did", "doing", "done", "have", "has", "had", "having", "can", "could", "may", "might", "must",
        "shall", "should", "will", "would", "about", "above", "across", "after", "against", "along",
        "among", "around", "as", "at", "before", "behind", "below", "beneath", "beside", "between",
        "beyond", "by", "down", "during", "for", "from", "in", "inside", "into", "near", "of", "off",
        "on", "onto", "out", "outside", "over", "per", "since", "through", "to", "toward", "towards",
        "under", "until", "up", "upon", "via", "with", "within", "without", "and", "but", "or", "nor",
        "so", "yet", "if", "then", "else", "than", "because", "although", "though", "while", "whereas",
        "whether", "unless", "not", "only", "also", "just", "very", "too", "there", "here", "again",
        "ever", "even", "still", "already", "s", "t", "re", "ve", "ll", "don", "doesn", "didn", "isn",
        "aren", "wasn", "weren", "hasn", "haven", "hadn", "couldn", "shouldn", "wouldn", "won",
    )
)  # fmt: skip
"""English articles, pronouns, auxiliaries, prepositions, conjunctions, and the pieces of contracted forms."""

Kind = Literal["source", "positives", "negatives"]


class Overlap(msgspec.Struct, frozen=True):
    """What a query shares with one text; both figures are 0 (no word) to 1."""

    jaccard: float  # weighted Jaccard similarity of the word counts; symmetric
    share: float  # of the query's distinct words, those that the text holds


class QueryOverlaps(msgspec.Struct, frozen=True):
    """What a query shares with its source, each positive, each negative and each further source, in the order given."""

    source: Overlap
    positives: tuple[Overlap, ...]
    negatives: tuple[Overlap, ...]
    companions: tuple[Overlap, ...] = ()


def word_counts(text: str, *, stop_words: Collection[str] = FUNCTION_WORDS) -> Counter[str]:
    """Word -> how often `text` holds it, stop words left out."""
    return content_counts(words(text), stop_words=stop_words)


def content_counts(of_text: Iterable[str], *, stop_words: Collection[str] = FUNCTION_WORDS) -> Counter[str]:
    """The same of a text's words, as `texts.words` gives them."""
    return Counter(word for word in of_text if word not in stop_words)


def weighted_jaccard(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """`sum min / sum max` of two vectors of counts: 1 if equal, 0 if they share nothing or are empty.

    Source: the paper, figure 3 (contamination).
    """
    smaller, larger = (a, b) if len(a) <= len(b) else (b, a)
    shared = sum(min(count, larger.get(word, 0)) for word, count in smaller.items())
    total = sum(a.values()) + sum(b.values()) - shared  # max(x, y) = x + y - min(x, y)
    return shared / total if total else 0.0


def share_found(query: Collection[str], text: Collection[str]) -> float:
    """The share of the query's distinct words that stand in the text; 0 if the query has none."""
    return sum(word in text for word in query) / len(query) if query else 0.0


def overlap(query: str, text: str, *, stop_words: Collection[str] = FUNCTION_WORDS) -> Overlap:
    """What `query` shares with `text`."""
    counts = word_counts(query, stop_words=stop_words)
    return _overlap(counts, word_counts(text, stop_words=stop_words))


def query_overlaps(
    query: str,
    source: str,
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    companions: Iterable[str] = (),
    stop_words: Collection[str] = FUNCTION_WORDS,
) -> QueryOverlaps:
    """What `query` shares with the text that it was written from, and with those that it is trained on.

    companions: the further texts that it was written from, if there were several.
    """
    counts = word_counts(query, stop_words=stop_words)

    def against(texts: Iterable[str]) -> tuple[Overlap, ...]:
        return tuple(_overlap(counts, word_counts(text, stop_words=stop_words)) for text in texts)

    return QueryOverlaps(
        source=against([source])[0],
        positives=against(positives),
        negatives=against(negatives),
        companions=against(companions),
    )


def pooled(
    overlaps: Iterable[QueryOverlaps], figure: Literal["jaccard", "share"] = "jaccard"
) -> dict[Kind, list[float]]:
    """`figure` of all (query, text) pairs, by what the text is to the query: what a report shows.

    A query that was written from several documents has a pair in `source` for each of them.
    """
    pools: dict[Kind, list[float]] = {"source": [], "positives": [], "negatives": []}
    for of_query in overlaps:
        pools["source"] += [getattr(found, figure) for found in (of_query.source, *of_query.companions)]
        pools["positives"] += [getattr(found, figure) for found in of_query.positives]
        pools["negatives"] += [getattr(found, figure) for found in of_query.negatives]
    return pools


def _overlap(query: Counter[str], text: Counter[str]) -> Overlap:
    return Overlap(jaccard=weighted_jaccard(query, text), share=share_found(query, text))


__all__ = [
    "FUNCTION_WORDS",
    "Overlap",
    "QueryOverlaps",
    "content_counts",
    "overlap",
    "pooled",
    "query_overlaps",
    "share_found",
    "weighted_jaccard",
    "word_counts",
]
