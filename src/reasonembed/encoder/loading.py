"""Weights and tokenizer of a model folder, through transformers; code, pickles and missing weights are refused."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import torch

from reasonembed.encoder.folder import ModelFolder
from reasonembed.encoder.tokens import Tokenizer
from reasonembed.errors import InputError, MissingExtra


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


def load_transformer(folder: ModelFolder, dtype: torch.dtype, *, quantized_on: str | None = None) -> Any:
    """The folder's transformer, from safetensors only.

    quantized_on: a device to put it on with the weights of its linear layers in 4-bit NormalFloat, their scales
    quantised too (Dettmers et al. 2023, arXiv:2305.14314); their products have the type `dtype`. None: on the CPU, as
    it is.
    Raises InputError if it cannot be loaded whole, MissingExtra if bitsandbytes is wanted and not installed.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel

    options = {} if quantized_on is None else {"quantization_config": _four_bits(dtype), "device_map": quantized_on}
    try:
        with no_progress_bars():
            model, info = AutoModel.from_pretrained(
                folder.transformer,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
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
    for (
        module
    ) in model.modules():  # a pass without gradient would repack these weights for a CPU, and round their scales
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _four_bits(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra(
            "quantize_base keeps the base in 4 bits by bitsandbytes, which is not installed: pip install "
            "'reasonembed[qlora]', or leave quantize_base out."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


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
