"""The model card: what a reader of the model folder is told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_CARD = """\
---
{base_line}library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- dense-retrieval
- reasoning-intensive-retrieval
- reasonembed
---
# A retriever trained with reasonembed

Trained from {base} with {loss} (ReasonEmbed, arXiv:2510.08252): {steps} steps on {examples} examples of
{domains}.
Vectors have {dimension} dimensions and unit length; compare them by their inner product (cosine).{cuts}{chosen}{mixed}

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH")
queries = model.encode(["..."], prompt_name="{prompt_name}")
documents = model.encode(["..."])
print(queries @ documents.T)
```

Prompts: {prompts}

Training settings, in full, are in `manifest.json`; the course of the training is in `train_log.jsonl`.
`golden.json` holds a few texts with their vectors: reasonembed checks them whenever it loads this folder.
No test results are stated here: a score belongs with its protocol, in the report that measured it.
"""

_MIXED = "Each weight that trained is the mean of the base's, which counts {share:g}, and the trained one."


class CardFacts(msgspec.Struct, frozen=True):
    """What the card states about a training."""

    base: str
    loss: str
    examples: int
    domains: Sequence[str]
    steps: int
    dimension: int
    prompts: dict[str, str]
    options: Sequence[str] = ()  # what was added to the loss, in words
    cuts: Sequence[int] = ()  # the numbers of dimensions that vectors may be cut to
    chosen: str = ""  # which weights were saved and why; empty: the last
    base_share: float = 0.0  # the base's part of each weight that trained


def model_card(facts: CardFacts) -> str:
    """The text of README.md, with the YAML head that the hub reads."""
    prompts = {name: prompt for name, prompt in facts.prompts.items() if prompt}
    shown = "\n".join(f"\n- `{name}`: `{prompt!r}`" for name, prompt in prompts.items())
    loss = "RI-InfoNCE" if facts.loss == "ri-infonce" else "InfoNCE"
    sizes = ", ".join(str(size) for size in sorted(facts.cuts))
    return _CARD.format(
        base_line=f"base_model: {facts.base}\n" if "/" in facts.base else "",
        base=facts.base,
        loss=", ".join([loss, *facts.options]),
        cuts=f"\nThey may be cut to their first dimensions ({sizes}; `truncate_dim`); cosine then." if sizes else "",
        chosen=f"\n{facts.chosen}" if facts.chosen else "",
        mixed=f"\n{_MIXED.format(share=facts.base_share)}" if facts.base_share else "",
        examples=facts.examples,
        domains=", ".join(facts.domains),
        steps=facts.steps,
        dimension=facts.dimension,
        prompt_name=next(iter(prompts), "query"),
        prompts=shown or "none; queries and documents are encoded bare.",
    )
