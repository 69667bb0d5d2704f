"""A language model in this process: its folder, its prompts and texts as tokens, its weights once they are needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from reasonembed.encoder.folder import find_model, fingerprint, read_model_folder
from reasonembed.encoder.loading import no_progress_bars
from reasonembed.errors import EndpointError, InputError
from reasonembed.llm.chat import Request
from reasonembed.llm.tokenizers import load_chat_tokenizer, prompt_ids

_DECIDING_FILES = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_CPU_TOKENS = 16384  # our choice: at 200 KB a token of a 0.6B model, 3.3 GB
_MOST_TOKENS = 65536
_LEAST_TOKENS = 2048


class LocalModel:
    """A causal language model from a folder or the hub, on the GPU in bfloat16 or on the CPU in float32.

    Weights are loaded at the first use of `weights`. `identity` names weights, tokenizer, template and dtype.
    Raises InputError for a folder that is no such model, holds code or pickles, or has no chat template.
    """

    def __init__(self, name: str) -> None:
        self.folder = find_model(name)
        self._transformer = read_model_folder(self.folder).transformer
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.identity = f"{_identity(self._transformer)}-{str(self.dtype).removeprefix('torch.')}"
        self._tokenizer = load_chat_tokenizer(self._transformer)
        if self._tokenizer.chat_template is None:
            raise InputError(
                f"{self.folder} has no chat template, so that it is not known how it is to be asked. Choose a model "
                f"that was tuned on instructions, or put chat_template.jinja into the folder."
            )
        self._config = _config(self._transformer)
        self.window: int | None = getattr(self._config, "max_position_embeddings", None)
        defaults = _defaults(self._transformer)
        self.top_p = float(defaults.get("top_p") or 1.0)
        self.top_k = int(defaults.get("top_k") or self._vocabulary)
        self.ends = _end_tokens(defaults, self._config, self._tokenizer)
        self._hidden = frozenset(self._tokenizer.all_special_ids) - frozenset(
            self._tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
        )
        self._weights: Any = None

    @property
    def _vocabulary(self) -> int:
        return int(self._config.vocab_size)

    def prompt(self, request: Request) -> list[int]:
        """The request as the model reads it. Raises ValueError if its chat template refuses it."""
        from jinja2 import TemplateError

        try:
            return prompt_ids(self._tokenizer, request)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses it: {error}") from error

    def text(self, tokens: list[int]) -> str:
        """What was written, without the tokens that a reader is not to see; the marks of thinking are kept."""
        shown = [token for token in tokens if token not in self._hidden and token not in self.ends]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False))

    @property
    def token_budget(self) -> int:
        """Tokens in one batch: a power of two, by what the weights leave of the GPU; fixed on a CPU."""
        if self.device.type == "cpu":
            return _CPU_TOKENS
        total = torch.cuda.get_device_properties(self.device).total_memory
        free = total - sum(tensor.numel() * tensor.element_size() for tensor in self.weights.parameters())
        config = self._config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        bytes_each = 2 * config.num_hidden_layers * heads * head_dim * self.dtype.itemsize
        tokens = max(1, int(free / 2 / bytes_each))  # the other half is for what a step computes
        return int(min(_MOST_TOKENS, max(_LEAST_TOKENS, 2 ** (tokens.bit_length() - 1))))

    @property
    def weights(self) -> Any:
        """The transformers model, loaded at the first call. Raises InputError if it cannot be loaded whole."""
        if self._weights is None:
            self._weights = self._load()
        return self._weights

    def _load(self) -> Any:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        causal: Any = AutoModelForCausalLM
        try:
            with no_progress_bars():
                model, info = causal.from_pretrained(
                    self._transformer,
                    dtype=self.dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                )
            if info["missing_keys"]:
                missing = sorted(info["missing_keys"])
                raise InputError(
                    f"{self.folder} lacks {len(missing)} weights of a language model, e.g. {missing[0]}; they would be "
                    f"random. An embedding model cannot write: choose one that can."
                )
            return model.to(self.device).eval()
        except torch.OutOfMemoryError as error:
            raise EndpointError(
                f"{self.folder} does not fit into the memory of {self.device}. Choose a smaller model, free the "
                f"device, or serve the model over HTTP."
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"transformers cannot load {self.folder} as a language model: {error}") from error


def _identity(transformer: Path) -> str:
    """Names all files that decide what is written."""
    digest = hashlib.sha256(fingerprint(transformer).encode())
    for name in _DECIDING_FILES:
        path = transformer / name
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ''}".encode())
    return digest.hexdigest()[:12]


def _config(transformer: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(transformer, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"transformers cannot read {transformer / 'config.json'}: {error}") from error
    return config.get_text_config()


def _defaults(transformer: Path) -> dict[str, Any]:
    """The model's own generation settings, as servers use them where a request says nothing."""
    path = transformer / "generation_config.json"
    try:
        values = json.loads(path.read_bytes()) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: broken JSON ({error}). Copy the model folder again.") from error
    return values if isinstance(values, dict) else {}


def _end_tokens(defaults: dict[str, Any], config: Any, tokenizer: Any) -> frozenset[int]:
    ends: set[int] = set()
    for stated in (defaults.get("eos_token_id"), getattr(config, "eos_token_id", None), tokenizer.eos_token_id):
        ends.update(stated if isinstance(stated, list) else [stated] if stated is not None else [])
    return frozenset(ends)


__all__ = ["LocalModel"]
