"""The step: the gradient of a global batch's loss in the memory of one micro-batch (law 5).

Every distinct text is tokenised and encoded once, in token-budget micro-batches. A first pass embeds without
gradient; the loss and its gradient are taken on the embeddings; a second pass re-runs each micro-batch and
hands its rows of that gradient on to the weights (Gao et al. 2021, arXiv:2101.06983). The sum is the plain
gradient. A batch whose whole graph fits into the memory that it may take is embedded once, with gradient. Several
processes share the texts out and gather the vectors between the two passes (`gather.py`); where they share the
weights out as well (`sharding.py`), all run equally many micro-batches, some of them for company only.

Shapes: B queries of the global batch, C passages as drawn (B groups of G, positive first), U distinct texts,
D dimension. A passage that was drawn twice is encoded once and counts twice: the loss gathers C columns from
the U embeddings, so it is exactly the loss over all that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reasonembed.encoder.microbatch import Rows
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.prompts import query_prompt
from reasonembed.encoder.tokens import TokenIds
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.dropout import Draws, no_draws
from reasonembed.redapter.gather import ALONE, Ranks
from reasonembed.redapter.graph import GraphMemory
from reasonembed.redapter.loss import WeightedLoss
from reasonembed.redapter.precision import autocast


class BatchTexts(NamedTuple):
    """The distinct texts of a global batch as token ids, and which row each use of a text refers to."""

    ids: list[TokenIds]  # U of them
    query_B: Rows
    passage_C: Rows
    reasoning_B: Rows | None  # None where nothing asks for reasoning queries
    truncated: int  # texts that were cut at the limit

    @property
    def trained_rows(self) -> Rows:
        """Rows that the loss has a gradient for: queries and passages."""
        return np.union1d(self.query_B, self.passage_C)

    @property
    def measured_rows(self) -> Rows:
        """Rows without a gradient: reasoning queries that are no query or passage."""
        return np.setdiff1d(np.arange(len(self.ids)), self.trained_rows)


class StepOutcome(NamedTuple):
    """What a step computed, apart from the gradients that now lie in the weights."""

    losses: WeightedLoss
    tokens: int  # real tokens of the distinct texts
    padding_share: float  # of the tokens computed in the first pass
    graph_kept: bool  # whether the second pass was spared


def tokenize_batch(encoder: Encoder, batch: Batch, config: TrainConfig) -> BatchTexts:
    """Token ids of the batch's distinct texts: queries with their instruction, passages bare."""
    prompts = [query_prompt(example.instruction if config.instruction else "") for example in batch.examples]
    query_limit, passage_limit = (
        min(limit, encoder.position_limit or limit) for limit in (config.max_query_tokens, config.max_passage_tokens)
    )
    rows: dict[tuple[str, int], int] = {}

    def refer(texts: Sequence[str], limit: int) -> Rows:
        return np.array([rows.setdefault((text, limit), len(rows)) for text in texts], dtype=np.intp)

    pairs = list(zip(prompts, batch.examples, strict=True))
    query_B = refer([prompt + example.query for prompt, example in pairs], query_limit)
    passage_C = refer([text for texts in batch.passages for text in texts], passage_limit)
    reasoning_B = None
    if config.needs_reasoning:
        reasoning_B = refer([prompt + example.reasoning_query for prompt, example in pairs], query_limit)
    ids: list[TokenIds] = [np.empty(0, dtype=np.int32)] * len(rows)
    truncated = 0
    for limit in {limit for _, limit in rows}:
        places = {row: text for (text, its_limit), row in rows.items() if its_limit == limit}
        tokenized = encoder.tokenize_counting(list(places.values()), limit)
        truncated += tokenized.truncated
        for row, tokens in zip(places, tokenized.ids, strict=True):
            ids[row] = tokens
    return BatchTexts(ids, query_B, passage_C, reasoning_B, truncated)


def cached_backward(
    encoder: Encoder,
    texts: BatchTexts,
    loss_of: Callable[[Tensor], WeightedLoss],
    *,
    budget_tokens: int,
    graph_bytes: int = 0,
    bf16: bool = False,
    ranks: Ranks = ALONE,
    draws: Draws = no_draws,
) -> StepOutcome:
    """Give the weights the gradient of `loss_of(vectors_UD).loss`: the plain computation's, in chunks.

    budget_tokens: tokens of a micro-batch with their padding; it bounds memory and changes nothing else but rounding.
    The texts that need a gradient are planned once, so that both passes run the same micro-batches.
    graph_bytes: a batch whose graph takes no more keeps it and spares the second pass; 0: none does. What the graph
    takes is reckoned from its first micro-batch, the longest texts. Each process decides for its own share; none
    keeps it where the weights are sharded.
    ranks: the processes that share the texts out; all end with the whole gradient. The weights must come without one.
    draws: what each micro-batch drops, in whichever pass (dropout.py).
    If the loss is not finite the weights get no gradient: look before you step.
    Raises torch.OutOfMemoryError in every process if it came in one (see `Ranks.together`), with the gradient half
    done.
    """
    lengths = np.array([len(row) for row in texts.ids])
    trained, measured = (
        ranks.even([rows[inner] for inner in encoder.micro_batches(lengths[rows], budget_tokens)])
        for rows in (ranks.share(texts.trained_rows, lengths), ranks.share(texts.measured_rows, lengths))
    )

    batches = [*trained, *measured]

    def embed(place: int) -> Tensor:
        with draws(place):
            if not batches[place].size:  # for company: the shortest text, whose vector nobody takes: a gradient of 0
                return _embed(encoder, texts.ids, np.array([lengths.argmin()]), bf16)[:0]
            return _embed(encoder, texts.ids, batches[place], bf16)

    allowed = 0 if ranks.sharded else graph_bytes
    first, graph_kept = ranks.together(lambda: _first_pass(encoder, embed, batches, len(trained), lengths, allowed))
    vectors_UD = torch.zeros(len(texts.ids), encoder.dimension, dtype=encoder.vector_dtype, device=encoder.device)
    for rows, vectors_BD in zip(batches, first, strict=True):
        vectors_UD[torch.from_numpy(rows)] = vectors_BD.detach()
    ranks.gather_rows(vectors_UD).requires_grad_()

    def second_pass() -> WeightedLoss:
        losses = loss_of(vectors_UD)
        if torch.isfinite(losses.loss):
            losses.loss.backward()
            gradient_UD = vectors_UD.grad
            assert gradient_UD is not None
            for place, rows in enumerate(trained):
                vectors_BD = first[place] if graph_kept else embed(place)
                (vectors_BD * gradient_UD[torch.from_numpy(rows)]).sum().backward()
                first[place] = vectors_BD.detach()  # its graph is let go
        return losses._replace(loss=losses.loss.detach())

    losses = ranks.together(second_pass)
    ranks.sum_gradients(encoder.model)
    tokens = int(lengths.sum())
    computed, kept = ranks.total(encoder.computed_tokens(lengths, batches), int(graph_kept))
    return StepOutcome(losses, tokens, 1 - tokens / computed, kept == ranks.size)


def _first_pass(
    encoder: Encoder,
    embed: Callable[[int], Tensor],
    batches: Sequence[Rows],
    trained: int,
    lengths: Rows,
    graph_bytes: int,
) -> tuple[list[Tensor], bool]:
    """The vectors of all micro-batches, and whether those of the first so many, which train, hold their graph."""
    vectors: list[Tensor] = []
    kept = graph_bytes > 0
    if kept and trained:
        memory = GraphMemory(encoder.model)
        with memory.counting():
            vectors.append(embed(0))
        sizes = [encoder.computed_tokens(lengths, [rows]) for rows in batches[:trained]]
        kept = memory.size_bytes / sizes[0] * sum(sizes) <= graph_bytes
        if not kept:
            vectors[0] = vectors[0].detach()
    with torch.set_grad_enabled(kept):
        vectors += [embed(place) for place in range(len(vectors), trained)]
    with torch.no_grad():
        vectors += [embed(place) for place in range(trained, len(batches))]
    return vectors, kept


def _embed(encoder: Encoder, ids: Sequence[TokenIds], rows: Rows, bf16: bool) -> Tensor:
    with autocast(encoder.device.type, bf16):
        return encoder.embed([ids[row] for row in rows])
