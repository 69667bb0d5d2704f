"""The encoder: texts in, L2-normalised vectors out. A sentence-transformers folder before and after training.

Shapes: B texts in a batch, T tokens, D dimension, N texts in all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reasonembed.encoder.folder import find_model, read_model_folder
from reasonembed.encoder.frozen import FrozenLayers, FrozenStates
from reasonembed.encoder.golden import check_golden
from reasonembed.encoder.loading import is_causal, load_tokenizer, load_transformer
from reasonembed.encoder.lora import layer_stack
from reasonembed.encoder.microbatch import Rows, padded_tokens, plan, plan_packed
from reasonembed.encoder.packed import CHECK_TEXTS, Packed
from reasonembed.encoder.pooling import PACKED_POOLINGS, POOLINGS, Pooling
from reasonembed.encoder.tokens import Side, TokenIds, Tokenized, Tokenizer, pad
from reasonembed.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}  # measured: on a CPU larger ones fall out of the caches
_CPU_KERNELS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
"""How many compiled kernels oneDNN keeps, read at its first one. Each shape of a micro-batch compiles a dozen, of up to
a megabyte; its own 1024 came to several hundred MiB within a few training steps, and were no faster (measured).
"""
_ROUNDING = {True: 1e-2, False: 1e-5}  # in half precision or not: how far from 1 a cosine may lie by it
_WINDOW = 32768  # texts tokenised at once: bounds the memory of a large corpus


class Encoder:
    """A transformer with its tokenizer and pooling.

    Attributes: `name`, `max_tokens` (special tokens included), `position_limit` (None: no fixed one),
    `dtype`, `dimension`, `pooling`, `prompts` (name -> what precedes a text), `device`, `model`,
    `tokenizer`, `causal`. The model is in evaluation mode, in training too, but for the steps of one with
    dropout. `frozen`, where set, keeps what the layers that do not train make of a text; `packed`, where set (see
    `pack`), has texts computed without padding.
    """

    frozen: FrozenLayers | None = None
    packed: Packed | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        name: str,
        pooling: Pooling,
        max_tokens: int,
        prompts: dict[str, str] | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.prompts = dict(prompts or {})
        self.causal = is_causal(model.config)
        self.dimension: int = model.config.hidden_size
        self.position_limit = _position_limit(model.config)

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        max_tokens: int | None = None,
        dtype: str = "float32",
        device: str | None = None,
        pooling: Pooling | None = None,
        quantize: bool = False,
    ) -> Encoder:
        """The model in a sentence-transformers or a bare transformers folder, or of that name on the hub.

        max_tokens: None takes the folder's own.  device: None takes CUDA where there is one.
        pooling: None takes the folder's own; a bare folder's decoder gets last_token (its tokenizer made to
        append EOS), an encoder mean.  quantize: keep the linear layers' weights in 4 bits (`load_transformer`), which
        gives slightly other vectors; adapters train on it.  Code and pickles in the folder are refused, never run.
        On a CPU few of oneDNN's compiled kernels are kept, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set.
        Raises InputError for a folder that is no model, DamageError if its golden vectors do not come out,
        MissingExtra if it is to be quantised without bitsandbytes.
        """
        if dtype not in DTYPES:
            raise ConfigError(f'dtype is "{dtype}"{nearest(dtype, DTYPES)} Known: {", ".join(DTYPES)}.')
        os.environ.setdefault(*_CPU_KERNELS)
        folder = read_model_folder(find_model(path_or_name))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = load_transformer(folder, DTYPES[dtype], quantized_on=device if quantize else None)
        own = folder.pooling or ("last_token" if is_causal(model.config) else "mean")
        chosen = pooling or own
        if chosen != own:
            logger.warning("%s is pooled by %s as asked for; its own pooling is %s.", path_or_name, chosen, own)
        tokenizer = load_tokenizer(folder, append_eos=chosen == "last_token" and is_causal(model.config))
        limit = _position_limit(model.config)
        own_limit = folder.max_tokens or min(tokenizer.tokenizer.model_max_length, limit or 512)
        if limit is not None and (max_tokens or 0) > limit:
            raise ConfigError(
                f"max_tokens is {max_tokens}; {path_or_name} has {limit} positions. Choose at most {limit}."
            )
        encoder = cls(
            model if quantize else model.to(device),
            tokenizer,
            name=str(path_or_name),
            pooling=chosen,  # type: ignore[arg-type]
            max_tokens=max_tokens or own_limit,
            prompts=folder.prompts,
        )
        if pooling in (None, folder.pooling) and not quantize:
            check_golden(encoder, folder.root)
        return encoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """The weights' type, a key of `DTYPES`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def vector_dtype(self) -> torch.dtype:
        """The type of the vectors that `embed` gives: float32 at least."""
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def tokenize(self, texts: Sequence[str], max_tokens: int | None = None) -> list[TokenIds]:
        """The ids of each text, int32, cut at `max_tokens` (None: the encoder's own) with special tokens."""
        return self.tokenize_counting(texts, max_tokens).ids

    def tokenize_counting(self, texts: Sequence[str], max_tokens: int | None = None) -> Tokenized:
        """As `tokenize`, with the number of texts that were cut."""
        return self.tokenizer(texts, max_tokens or self.max_tokens)

    def keep_frozen(self, last_layers: int, states: FrozenStates | None = None) -> None:
        """From now on, compute once a text what the layers below the last `last_layers` make of it; those must stay as
        they are. A model that trains all its layers has nothing to keep.
        """
        layers = layer_stack(self.model)
        first = len(layers) - last_layers
        states = FrozenStates() if states is None else states
        self.frozen = FrozenLayers(self.model, layers, first, states) if first > 0 else None

    def pack(self, *, bf16: bool = False) -> None:
        """From now on, compute no padding: `embed` lays texts one after the other in a row (packed.py). Until `unpack`.

        bf16: whether it is going to run under bfloat16 autocast.
        Raises ConfigError for a model that cannot, also if its packed vectors of a few texts are not the padded ones.
        """
        if self.packed:
            return
        try:
            padded_BD = self.check_vectors(bf16=bf16)
            self.packed = Packed(self.model, bf16=bf16)
            cosine = self.changed_from(padded_BD, bf16=bf16)
        except ConfigError:
            self.unpack()
            raise
        if cosine is not None:
            self.unpack()
            raise ConfigError(
                f"{self.name} gives other vectors when texts are packed into one row (cosine {cosine:.5f} to the "
                f"padded ones): something in it does not start anew with each text. Leave packed out."
            )

    def unpack(self) -> None:
        """Compute texts padded again, with the model's own attention."""
        if self.packed:
            self.packed.lift()
        self.packed = None

    @torch.no_grad()
    def check_vectors(self, *, bf16: bool = False) -> Tensor:
        """The vectors of a few short texts as they come out now, float64 (B, D).  bf16: under bfloat16 autocast."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.embed(self.tokenize(CHECK_TEXTS)).double()

    def changed_from(self, before_BD: Tensor, *, bf16: bool = False) -> float | None:
        """None where `check_vectors` gives what it gave before, but for rounding; else the least cosine to it."""
        cosine = float((before_BD * self.check_vectors(bf16=bf16)).sum(dim=1).min())
        rounding = _ROUNDING[bf16 or self.dtype in ("bfloat16", "float16")]
        return None if abs(1 - cosine) <= rounding else cosine

    def micro_batches(self, lengths: Sequence[int] | npt.NDArray[np.integer], budget_tokens: int) -> list[Rows]:
        """Rows of `lengths` in micro-batches of at most `budget_tokens`: padded tokens, or real ones where packed."""
        return (plan_packed if self.packed else plan)(lengths, budget_tokens)

    def computed_tokens(self, lengths: npt.NDArray[np.integer], batches: Sequence[Rows]) -> int:
        """How many tokens are computed when `batches` are embedded: padding included, unless packed."""
        if self.packed:
            return sum(int(lengths[rows].sum()) for rows in batches)
        return padded_tokens(lengths, batches)

    def embed(self, ids: Sequence[TokenIds], *, padding_side: Side = "right") -> Tensor:
        """The vectors of one batch of tokenised texts, shape (B, D), L2-normalised; gradients flow.

        Half-precision models give float32 vectors. Padding side and packing change nothing but rounding; a
        causal model padded on the right needs no mask, since no token looks to its right, and is
        faster without. Padding asked for on the left is computed as such, packed or not.
        """
        if self.packed and padding_side == "right":
            pooled_BD = self._embed_packed(self.packed, ids)
        else:
            pooled_BD = self._embed_padded(ids, padding_side)
        wide = torch.promote_types(pooled_BD.dtype, torch.float32)
        return torch.nn.functional.normalize(pooled_BD.to(wide), dim=-1)

    def _embed_packed(self, packed: Packed, ids: Sequence[TokenIds]) -> Tensor:
        inputs = packed.inputs(ids)
        if self.causal:
            inputs["use_cache"] = False
        if self.frozen is not None:
            hidden_1TD = self.frozen(ids, inputs, packed=True)
        else:
            hidden_1TD = self.model(**inputs).last_hidden_state
        return PACKED_POOLINGS[self.pooling](hidden_1TD[0], inputs["cu_seq_lens_q"])

    def _embed_padded(self, ids: Sequence[TokenIds], padding_side: Side) -> Tensor:
        input_BT, mask_BT = (tensor.to(self.device) for tensor in pad(ids, self.tokenizer.pad_id, side=padding_side))
        inputs: dict[str, Any] = {"input_ids": input_BT}
        if self.causal:
            inputs["use_cache"] = False
        if not bool(mask_BT.all()) and not (self.causal and padding_side == "right"):
            inputs["attention_mask"] = mask_BT
        if padding_side == "left" and not _positions_from_ids(self.model):
            inputs["position_ids"] = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        if self.frozen is not None and padding_side == "right":
            hidden_BTD = self.frozen(ids, inputs)
        else:
            hidden_BTD = self.model(**inputs).last_hidden_state
        return POOLINGS[self.pooling](hidden_BTD, mask_BT)

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        micro_batch_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The vectors of `prompt + text` for each text in order: float32 (N, D), L2-normalised.

        progress: called with (texts done, texts in all) after each micro-batch.
        """
        budget = micro_batch_tokens or MICRO_BATCH_TOKENS["cuda" if self.device.type == "cuda" else "cpu"]
        vectors_ND = np.empty((len(texts), self.dimension), dtype=np.float32)
        done = 0
        for start in range(0, len(texts), _WINDOW):
            ids = self.tokenize([prompt + text for text in texts[start : start + _WINDOW]], max_tokens)
            for rows in self.micro_batches([len(row) for row in ids], budget):
                with torch.inference_mode():
                    embedded_BD = self.embed([ids[row] for row in rows])
                vectors_ND[start + rows] = embedded_BD.float().cpu().numpy()
                done += len(rows)
                if progress:
                    progress(done, len(texts))
        return vectors_ND


def _position_limit(config: Any) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    if not limit or limit < 0:
        return None
    from_ids = "roberta" in config.model_type or config.model_type in (
        "camembert",
        "mpnet",
    )  # two are reserved
    return limit - 2 if from_ids else limit


def _positions_from_ids(model: Any) -> bool:
    """RoBERTa and its kin count positions from the ids themselves, past the padding."""
    return any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules())
