"""Weights and tokenizer of a model folder, through transformers; code, pickles and missing weights are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from reasonembed.encoder.folder import ModelFolder
from reasonembed.encoder.tokens import Tokenizer
from reasonembed.errors import InputError


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing its bars for loading and saving: progress is the caller's matter."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def is_causal(config: Any) -> bool:
    """Whether the model reads from left to right only: a decoder, unless its config says otherwise."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    decoder = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    bidirectional = getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True)
    return decoder and not both_ways and not bidirectional


def load_transformer(folder: ModelFolder, dtype: torch.dtype) -> Any:
    """The folder's transformer, from safetensors only. Raises InputError if it cannot be loaded whole."""
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        with no_progress_bars():
            model, info = AutoModel.from_pretrained(
                folder.transformer,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"transformers cannot load {folder.transformer}: {error}") from error
    if model.config.is_encoder_decoder:
        raise InputError(
            f"{folder.transformer} is an encoder-decoder ({model.config.model_type}); give a plain encoder or decoder."
        )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(
            f"{folder.transformer} lacks {len(missing)} weights, e.g. {missing[0]}; they would be random. Copy the "
            f"folder again, whole, or choose another model."
        )
    return model


def load_tokenizer(folder: ModelFolder, *, append_eos: bool) -> Tokenizer:
    """The folder's tokenizer. Raises InputError if there is none, or if it does not do what the folder asks for."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.transformer, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"transformers cannot load the tokenizer of {folder.transformer}: {error}") from error
    if folder.lower_case and not getattr(tokenizer, "do_lower_case", False):
        raise InputError(
            f"{folder.transformer / 'sentence_bert_config.json'} asks for lower-casing (do_lower_case), which its "
            f"tokenizer does not do itself. Put the lower-casing into tokenizer.json, or choose another model."
        )
    return Tokenizer(tokenizer, append_eos=append_eos)
