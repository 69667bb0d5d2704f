"""The paper's ablation, and nothing else: the source as the positive. It breaks law 1 on purpose.

Trained on such trivial examples a model learns surface cues (16.1 against 37.1 nDCG@10 on BRIGHT; arXiv
2510.08252). No stage of ReMixer uses this module; what it gives must not be mixed with other examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from reasonembed.records import Example, Graded, source_ids

_TOP_GRADE = 5


def source_positive_examples(examples: Iterable[Example]) -> Iterator[Example]:
    """Each example with its source, or its sources, as the only positives, and its annotated negatives.

    Our reading: the negatives stay those of ReMixer, so that the positive is all that differs; the annotated
    positives go, since as negatives they would punish what is right.
    """
    for example in examples:
        yield msgspec.structs.replace(
            example, positives=tuple(Graded(doc_id, _TOP_GRADE) for doc_id in source_ids(example))
        )
