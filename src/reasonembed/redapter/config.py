"""How a model is trained: one frozen, validated Struct beside the code that it configures."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from reasonembed.encoder.lora import LoraSettings

TEMPERATURE = 0.02  # paper, Sec. 4.1
KAPPA = 5.0  # the release's clamp
EPSILON = 1e-6  # the release's, under the fraction
WIDEST_MARGIN = 2.0  # no two cosines differ by more

RUNNING_KEYS = (
    "micro_batch_tokens",
    "packed",
    "compile",
    "kept_graph_mb",
    "activation_checkpointing",
    "shard",
    "shard_optimizer",
    "checkpoint_every_steps",
    "keep_checkpoints",
)
"""Keys that say how a training is run, not what comes out (but for rounding): free to change when it
resumes.
"""


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The recipe. Defaults are the paper's (Sec. 4.1 and its release) where no other origin is named."""

    loss: Literal["infonce", "ri-infonce"] = "ri-infonce"
    temperature: float = TEMPERATURE  # above 0; divides cosine similarities
    kappa: float = KAPPA  # above 0; no sample's reasoning intensity counts for more
    epsilon: float = EPSILON  # at least 0; under the fraction of reasoning intensity (release)
    start_step: int = 100  # optimiser steps with plain InfoNCE before weights count
    measure_intensity: bool = False  # log reasoning intensity under plain InfoNCE too; ri-infonce always does
    mask_positives: bool = (
        True  # our choice (law 1): annotated positives and the source are never negatives; paper: false
    )
    mask_margin: float | None = None
    """At least 0: others' passages that score above the positive by more are no negatives (our option; the
    Qwen3 Embedding report: 0.1); None, or 2 and more: off.
    """
    multi_positive: bool = False  # annotated positives in the batch count as positives (our option: SINCERE)
    listwise_weight: float = 0.0  # at least 0; times ListNet on the grades of a query's own group (our option)
    distill_weight: float = 0.0  # at least 0; times KL from the reasoning query's scores to the query's (our option)
    matryoshka_dims: tuple[int, ...] = ()  # the loss is averaged over the first so many dimensions and all (our option)
    instruction: bool = True  # put `Instruct: {instruction}\nQuery: ` before queries and reasoning queries
    learning_rate: float = 1e-4  # above 0; the peak
    warmup_share: float = 0.1  # of all steps, 0 to 1; linear up, then linear down to 0
    weight_decay: float = 0.0  # at least 0; on matrices only (release: its trainer's default)
    gradient_clip: float | None = (
        1.0  # largest norm of the gradient; None: no clipping (release: its trainer's default)
    )
    epochs: int = 1
    seed: int = 42  # decides order and draws (our choice)
    group_size: int | None = None
    """Passages per query, one of them positive; 1: other queries' positives are the only negatives; None: the domain's
    own.
    """
    global_queries: int | None = None  # queries per optimiser step over all devices; None: the domain's own
    domain_weights: dict[str, float] = {}
    """Domain -> above 0: how many times an epoch visits each of its examples; a half: every other one, the others in
    the next epoch (our option). Domains that are not named: once.
    """
    max_query_tokens: int = 512
    max_passage_tokens: int = 512
    lora: LoraSettings | None = None  # None: train the weights themselves; the paper: rank 32, alpha 64
    train_layers: int | None = None  # only the last so many layers; None: all (our choice, for speed on a CPU)
    dropout: bool = (
        False  # the base's own, with the probabilities of its configuration (our choice: fused attention stays)
    )
    base_share: float = 0.0
    """From 0 to below 1: the base's part of each weight that trains, in the model that is saved and validated (our
    option: WiSE-FT, arXiv 2109.01903); 0: the trained weights alone.
    """
    pooling: Literal["last_token", "mean", "cls"] | None = None
    """How token vectors become a text's; None: the base's own, which for a bare decoder is the paper's, last_token."""
    bf16: bool = False  # bfloat16 autocast; the paper: true, on GPUs
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of float32 products. high: TF32 on a GPU; medium: there too, and bfloat16 on a CPU that multiplies it in hardware
    (AMX, and ARM's; with AVX512-BF16 alone by autocast, as `bf16`; others: in full). Weights and vectors stay float32
    (torch.set_float32_matmul_precision).
    """
    micro_batch_tokens: int = 2048  # computed at once, padding included (measured best on a CPU); per device
    packed: bool = False  # texts one after the other in a row, each seeing itself alone, instead of padded (our option)
    compile: bool = False  # the layers that train, by torch.compile, at the first steps (our option)
    kept_graph_mb: int = 2048  # MiB that a batch's graph may take to be kept instead of cached; 0: always cached
    activation_checkpointing: bool = False  # keep a layer's input only and run it again for the backward pass
    shard: bool = False  # several processes hold a part of each weight instead of all (FSDP2); alone: no effect
    shard_optimizer: bool = (
        False  # several processes hold the optimiser state of a part each (ZeRO-1); alone: no effect
    )
    checkpoint_every_steps: int = 50  # 0: only when interrupted
    keep_checkpoints: int = 2  # the newest so many stay while training runs
    validate_every_steps: int = 50  # where validation queries are given; 0: only before the first and after the last
    patience: int | None = None  # validations in a row without a better score that end the training; None: never

    def __post_init__(self) -> None:
        for key in ("temperature", "kappa", "learning_rate"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "above 0")
        for key in (
            "epsilon", "weight_decay", "start_step", "kept_graph_mb", "checkpoint_every_steps", "listwise_weight",
            "distill_weight", "validate_every_steps",
        ):  # fmt: skip
            _require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        for key in ("epochs", "micro_batch_tokens", "keep_checkpoints"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("max_query_tokens", "max_passage_tokens"):
            _require(getattr(self, key) >= 8, key, getattr(self, key), "at least 8")
        _require(0 <= self.base_share < 1, "base_share", self.base_share, "0 or more, and below 1")
        _require(0 <= self.warmup_share <= 1, "warmup_share", self.warmup_share, "between 0 and 1")
        _require(
            self.gradient_clip is None or self.gradient_clip > 0,
            "gradient_clip",
            self.gradient_clip,
            "above 0",
        )
        _require(self.group_size is None or self.group_size >= 1, "group_size", self.group_size, "at least 1")
        _require(
            self.global_queries is None or self.global_queries >= 1,
            "global_queries",
            self.global_queries,
            "at least 1",
        )
        if self.group_size == 1 and self.global_queries == 1:
            raise ValueError(
                "group_size and global_queries are both 1: nothing would be a negative. Raise one of them."
            )
        if self.group_size == 1 and self.listwise_weight:
            raise ValueError(
                "group_size is 1 and listwise_weight is set: a list of one passage has no order. Raise group_size."
            )
        _require(
            self.train_layers is None or self.train_layers >= 1,
            "train_layers",
            self.train_layers,
            "at least 1",
        )
        _require(self.patience is None or self.patience >= 1, "patience", self.patience, "at least 1")
        if self.patience is not None and self.validate_every_steps == 0:
            raise ValueError(
                f"patience is {self.patience} and validate_every_steps is 0: between the first step and the last "
                f"nothing is validated that could end the training. Raise validate_every_steps, or leave patience out."
            )
        _require(self.mask_margin is None or self.mask_margin >= 0, "mask_margin", self.mask_margin, "0 or more")
        _require(
            all(size >= 1 for size in self.matryoshka_dims)
            and len(set(self.matryoshka_dims)) == len(self.matryoshka_dims),
            "matryoshka_dims",
            self.matryoshka_dims,
            "distinct numbers of dimensions, each at least 1",
        )
        for domain, weight in self.domain_weights.items():
            _require(0 < weight < math.inf, f"domain_weights.{domain}", weight, "above 0 and finite")
        suspects = self.mask_margin is not None and self.mask_margin < WIDEST_MARGIN
        for key, is_on, off in (
            ("mask_margin", suspects, f"{WIDEST_MARGIN}, at which nothing is masked"),
            ("multi_positive", self.multi_positive, "false"),
        ):
            if is_on and not self.mask_positives:
                raise ValueError(
                    f"{key} is {getattr(self, key)!r} and mask_positives is False: annotated positives would count as "
                    f"negatives at the same time. Set mask_positives to true, or leave {key} out (in a recipe that has "
                    f"it: set it to {off})."
                )
        if self.lora is not None and self.train_layers is not None:
            raise ValueError("lora and train_layers cannot go together; set one of them.")
        if self.compile and self.drops:
            raise ValueError(
                "compile and dropout cannot go together: compiled, the two passes of a step would drop different "
                "activations. Leave one of them out."
            )
        if self.shard and self.shard_optimizer:
            raise ValueError("shard shares the optimiser's state out with the weights; leave shard_optimizer out.")
        if self.lora is not None and self.lora.quantize_base and self.shard:
            raise ValueError("lora.quantize_base and shard cannot go together: weights of 4 bits are not shared out.")

    @property
    def needs_reasoning(self) -> bool:
        """Whether the reasoning queries are encoded at all; where they are, intensity is measured and logged."""
        return self.loss == "ri-infonce" or self.measure_intensity or self.distill_weight > 0

    @property
    def keeps_base_coarse(self) -> bool:
        """Whether the frozen base of adapters lies in memory in fewer bits while they train; it is saved in full."""
        return self.lora is not None and (self.lora.quantize_base or self.bf16) and not self.shard

    @property
    def drops(self) -> bool:
        """Whether anything is dropped at all while a model trains."""
        return self.dropout or (self.lora is not None and self.lora.dropout > 0)


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{key} is {value!r}; it must be {expected}.")
