"""How much of a batch is computed at once: what the configuration allows, and less once memory ran out."""

from __future__ import annotations

from reasonembed.errors import ReasonEmbedError
from reasonembed.redapter.config import TrainConfig


class StepMemory:
    """What a step may take. Halving it changes nothing but rounding and time."""

    def __init__(self, config: TrainConfig) -> None:
        self.asked_tokens = config.micro_batch_tokens
        self.halvings = 0  # how often memory ran out, in this run and those that it goes on from
        self._graph_bytes = config.kept_graph_mb << 20

    @property
    def budget_tokens(self) -> int:
        """Tokens of a micro-batch, padding included."""
        return max(1, self.asked_tokens >> self.halvings)

    @property
    def graph_bytes(self) -> int:
        """What a batch's graph may take to be kept; 0, so that none is, once memory ran out."""
        return 0 if self.halvings else self._graph_bytes

    def halve(self, *, longest_tokens: int) -> None:
        """Allow half as much from now on. Raises ReasonEmbedError if even single texts have been too much.

        longest_tokens: of any text of the batch that memory did not hold.
        """
        if self.budget_tokens <= longest_tokens and self.halvings:
            raise ReasonEmbedError(
                f"memory ran out with micro-batches of {self.budget_tokens:,} tokens, where the longest text of "
                f"{longest_tokens:,} stands alone. Lower max_query_tokens and max_passage_tokens, train with lora or "
                f"fewer train_layers, or take a device with more memory."
            )
        self.halvings += 1


__all__ = ["StepMemory"]
