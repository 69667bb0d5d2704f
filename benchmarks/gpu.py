"""All that is to be known about a GPU in one run of less than ten minutes (goals P1 to P4 there).

    python benchmarks/gpu.py --out FOLDER [--size 0.6b 4b 8b] [--minutes 9] [--device cuda]
    python benchmarks/gpu.py --out FOLDER --size tiny --device cpu

Qwen3 of three sizes by their public configurations, with random weights, so that nothing is fetched; texts are cut from
the pocket corpora (mixed lengths to 512), for which a small tokenizer is trained. The parts, in this order:

- `rate`: bfloat16 matrix products, the rate that MFU is measured against.
- `lora`, `full`: one global batch of 16 x 16. Ours padded, ours packed, ours packed with the graph kept where it fits,
  the release's scheme, CachedMultipleNegativesRankingLoss in mini-batches of 4 and by tokens (these as in
  `train_step.py`), and ours packed with the layers compiled (`torch.compile`; compiling is not timed). On all sides
  float32 weights in bfloat16 autocast; under adapters the base lies in bfloat16, as a training keeps it. What RI adds,
  and tokenising; cosines of the gradients.
- `recipe`: the recipe's global batch, 64 x 16 texts of 512 tokens, by LoRA, packed.
- `encode`: texts to vectors in bfloat16 weights against sentence-transformers' `encode` at its default.

A step here is the gradient of a batch; the optimiser's update and its state, two numbers a trained weight, come on top.
Useful FLOPs are 6 x the weights but for the embeddings x the real tokens, 4 x where adapters alone train, and 2 x for
reasoning queries, which have no backward pass. A micro-batch that memory does not hold is halved. What the time does
not suffice for is left out and named. FOLDER gets `gpu.jsonl` and `gpu.md`. Needs torch, transformers, peft,
sentence-transformers, msgspec and zstandard, and `src` on PYTHONPATH where the package is not installed.
"""

from __future__ import annotations

import argparse
import functools
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor

import train_step as peers
from gpu_rows import (
    ADDED,
    COMPILED,
    KEPT,
    MNRL,
    MNRL_TOKENS,
    OURS,
    PACKED,
    PEER,
    PLAIN,
    RELEASE,
    SAME_AS,
    TOKENIZED,
    Bench,
    Row,
    goals,
)
from pocket_texts import LONGEST, text_drawer
from reasonembed.encoder.lora import LoraSettings, add_lora, layer_stack, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.tokens import Tokenizer
from reasonembed.errors import ConfigError
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.compiling import compile_layers
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.gradcache import BatchTexts, cached_backward, tokenize_batch
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.precision import narrow_frozen
from setting import setting


class Size(NamedTuple):
    """The shape of a model, as its public configuration has it, and what is asked of it here."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    parts: tuple[str, ...]
    queries: int = 16
    recipe_queries: int = 64
    passages: int = 16
    texts: int = 2000  # to encode
    micro_batch_tokens: int = 8192


SIZES = {
    "4b": Size(2560, 9728, 36, 32, 8, 128, 151936, ("lora", "encode", "full")),
    "8b": Size(4096, 12288, 36, 32, 8, 128, 151936, ("lora", "recipe", "encode")),
    "0.6b": Size(1024, 3072, 28, 16, 8, 128, 151936, ("lora", "encode", "full")),
    "tiny": Size(64, 192, 2, 4, 2, 16, 8000, ("lora", "recipe", "encode", "full"), 3, 4, 4, 40, 1024),
}
REPEATS = 3
COMPARED = 1 << 28  # weights whose gradient is kept for comparison
WARM_UP = 8  # texts
GRAPH_SHARE = 0.8  # of the free memory, for a kept graph


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    bench = Bench(options.out, device, options.minutes * 60)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU: figures mean nothing"
    bench.add(Row("setting", "", f"{setting()}, torch {torch.__version__}, {name}"))
    torch.manual_seed(0)
    bench.rate = _matrix_rate(bench)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _small_tokenizer(Path(folder))
        for size in options.size:
            for part in SIZES[size].parts:
                _run_part(bench, part, size, Path(folder), tokenizer)
    print("\n".join(goals(bench.rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["4b", "8b", "0.6b"])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _run_part(bench: Bench, part: str, size: str, folder: Path, tokenizer: Tokenizer) -> None:
    """One part; memory that runs out ends it and no other."""
    run = {"encode": _encode, "recipe": _recipe}.get(part, functools.partial(_train, lora=part == "lora"))
    if not bench.time_for(20 if bench.device.type == "cuda" else 1):
        bench.add(Row(part, size, "all", note="left out: the time was up"))
        return
    try:
        run(bench, size, folder, tokenizer)
    except torch.OutOfMemoryError:
        bench.add(Row(part, size, "the rest", note="left out: memory ran out"))
    _let_go(bench.device)


def _matrix_rate(bench: Bench) -> float:
    """bfloat16 FLOP/s of square matrix products, the best of a few."""
    width = 8192 if bench.device.type == "cuda" else 512
    one, other = (torch.randn(width, width, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        peers.finish(bench.device)
        began = time.perf_counter()
        for _ in range(10):
            one @ other
        peers.finish(bench.device)
        best = max(best, 10 * 2 * width**3 / (time.perf_counter() - began))
    bench.add(Row("rate", "", f"bfloat16 products of {width} x {width}: {best / 1e12:,.2f} TFLOP/s"))
    return best


def _small_tokenizer(folder: Path) -> Tokenizer:
    """A BPE of 8,000 pieces, trained on the pocket's texts, in `folder` and as ours."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    draw = text_drawer(0)
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["tiny"].vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((draw() for _ in range(2000)), trainer)
    end = "<|endoftext|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end, model_max_length=LONGEST)
    tokenizer = Tokenizer(fast, append_eos=True)
    fast.save_pretrained(folder)
    return tokenizer


def _encoder(size: str, tokenizer: Tokenizer, dtype: torch.dtype, device: torch.device) -> Encoder:
    """A Qwen3 of that size with random weights, made where it runs."""
    from transformers import Qwen3Config, Qwen3Model

    shape = SIZES[size]
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        dtype=dtype,
        attn_implementation="sdpa",
    )
    with device:
        model = Qwen3Model._from_config(config)
    return Encoder(model, tokenizer, name=f"Qwen3-{size}", pooling="last_token", max_tokens=LONGEST)


def _peer(folder: Path, encoder: Encoder) -> Any:
    """sentence-transformers around the same weights; a small model of the kind stands in while it is put together."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import Qwen3Config, Qwen3Model

    if not (folder / "config.json").exists():
        shape = SIZES["tiny"]
        small = {"vocab_size": shape.vocabulary, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
        Qwen3Model(Qwen3Config(**small, **heads)).save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=LONGEST)
    transformer.model = encoder.model
    pooling = Pooling(encoder.dimension, pooling_mode="lasttoken")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=str(encoder.device)).eval()


class Step(NamedTuple):
    """What a batch's gradient is taken of, by whom, and what that takes in useful FLOPs."""

    encoder: Encoder
    batch: Batch
    config: TrainConfig
    texts: BatchTexts
    useful: float

    @property
    def tokens(self) -> int:
        """Real ones."""
        return sum(map(len, self.texts.ids))


def _step(encoder: Encoder, queries: int, passages: int, *, median_tokens: int, lora: bool, loss: Any) -> Step:
    config = TrainConfig(loss=loss, start_step=0, instruction=False, mask_positives=False, bf16=True)
    batch = peers.make_batch(queries, passages, median_tokens=median_tokens)
    texts = tokenize_batch(encoder, batch, config)
    embeddings = encoder.model.get_input_embeddings().weight
    weights = sum(
        p.numel() for name, p in encoder.model.named_parameters() if p is not embeddings and "lora_" not in name
    )
    trained, measured = (sum(len(texts.ids[row]) for row in rows) for rows in (texts.trained_rows, texts.measured_rows))
    return Step(encoder, batch, config, texts, weights * ((4 if lora else 6) * trained + 2 * measured))


def _train(bench: Bench, size: str, folder: Path, tokenizer: Tokenizer, *, lora: bool) -> None:
    """The sides of a training step, with and without RI. The gradient of `PACKED`, and then of `PLAIN`, is compared."""
    shape, part = SIZES[size], "lora" if lora else "full"
    encoder = _trainable(size, tokenizer, bench.device, lora=lora)
    ri, plain = (
        _step(encoder, shape.queries, shape.passages, median_tokens=90, lora=lora, loss=loss)
        for loss in ("ri-infonce", "infonce")
    )
    budget = _fitting_budget(encoder, ri.texts, shape.micro_batch_tokens)
    if refused := _pack(encoder):
        bench.add(Row(part, size, PACKED, note=refused))
        return
    free = torch.cuda.mem_get_info()[0] if bench.device.type == "cuda" else 1 << 30
    graph = int(GRAPH_SHARE * free)
    sides: list[tuple[str, Step, bool, Callable[[], float]]] = [
        (PACKED, ri, True, lambda: _ours(ri, budget)),
        (KEPT, ri, True, lambda: _ours(ri, budget, graph_bytes=graph)),
        (OURS, ri, False, lambda: _ours(ri, budget)),
        (RELEASE, ri, False, lambda: _released(ri)),
        (PLAIN, plain, True, lambda: _ours(plain, budget)),
        *((name, plain, False, step) for name, step in _mnrl_sides(folder, plain, budget)),
        (COMPILED, ri, True, lambda: _ours(ri, budget)),  # the last: from here on layers are compiled
    ]
    found: dict[str, Row] = {}
    gradients: dict[str, Tensor] = {}
    for name, step, packed, run in sides:
        if packed:
            _pack(encoder)
        else:
            encoder.unpack()
        if name == COMPILED:
            _add_parts_of_a_step(bench, part, ri, budget, found[PACKED])
            if refused := _compile(bench, ri, budget):
                bench.add(Row(part, size, name, note=refused))
                continue
        row = _measure_step(bench, Row(part, size, name), step, run)
        if row.seconds and (gradient := _gradient(encoder)) is not None:
            gradients[name] = gradient
        encoder.model.zero_grad(set_to_none=True)
        found[name] = row
        _compare(row, found.get(SAME_AS.get(name, "")), gradients)
        bench.add(row)


def _add_parts_of_a_step(bench: Bench, part: str, step: Step, budget: int, whole: Row) -> None:
    """What the reasoning queries' pass and tokenising take, each by itself; the encoder is packed."""
    added = peers.reasoning_seconds(step.encoder, step.texts, budget_tokens=budget, bf16=True)
    if whole.seconds > added:
        share = added / (whole.seconds - added)
        bench.add(Row(part, whole.size, ADDED, seconds=added, note=f"{share:.1%} of a plain step"))
    began = time.perf_counter()
    tokenize_batch(step.encoder, step.batch, step.config)
    seconds = time.perf_counter() - began
    if whole.seconds:
        bench.add(Row(part, whole.size, TOKENIZED, seconds=seconds, note=f"{seconds / whole.seconds:.1%} of a step"))


def _compile(bench: Bench, step: Step, budget: int) -> str:
    """Compile the layers and run a step with them; why not, if it cannot be, or an empty text."""
    if not bench.time_for(90 if bench.device.type == "cuda" else 1):
        return "left out: the time was up"
    try:
        compile_layers(step.encoder, layer_stack(step.encoder.model), bf16=True)
        _ours(step, budget)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ConfigError) as error:
        return f"left out: {str(error).strip().splitlines()[0]:.200}"
    return ""


def _recipe(bench: Bench, size: str, folder: Path, tokenizer: Tokenizer) -> None:
    """The recipe's global batch with all texts at 512 tokens."""
    shape = SIZES[size]
    encoder = _trainable(size, tokenizer, bench.device, lora=True)
    step = _step(
        encoder, shape.recipe_queries, shape.passages, median_tokens=20 * LONGEST, lora=True, loss="ri-infonce"
    )
    budget = _fitting_budget(encoder, step.texts, shape.micro_batch_tokens)
    refused = _pack(encoder)
    row = Row("recipe", size, OURS if refused else PACKED)
    bench.add(_measure_step(bench, row, step, lambda: _ours(step, budget), repeats=1))


def _trainable(size: str, tokenizer: Tokenizer, device: torch.device, *, lora: bool) -> Encoder:
    encoder = _encoder(size, tokenizer, torch.float32, device)
    if not lora:
        train_last_layers(encoder.model, None)
        return encoder
    encoder.model = add_lora(encoder.model, LoraSettings())
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)  # fresh adapters give half their weights no gradient
    narrow_frozen(encoder.model)  # as a training keeps them
    return encoder


def _pack(encoder: Encoder) -> str:
    """Pack from here on; why not, if it cannot be, or an empty text."""
    try:
        encoder.pack(bf16=encoder.dtype == "float32")
    except ConfigError as error:
        return f"left out: {error}"
    return ""


def _fitting_budget(encoder: Encoder, texts: BatchTexts, budget: int) -> int:
    """`budget`, halved until the longest micro-batch fits into memory with its graph; it warms up, too."""
    lengths = [len(row) for row in texts.ids]
    while True:
        rows = encoder.micro_batches(lengths, budget)[0]
        try:
            with torch.autocast(encoder.device.type, torch.bfloat16, cache_enabled=False):
                vectors_BD = encoder.embed([texts.ids[row] for row in rows])
            vectors_BD.sum().backward()
            return budget
        except torch.OutOfMemoryError:
            if budget <= LONGEST:
                raise
            budget //= 2
        finally:
            vectors_BD = None
            encoder.model.zero_grad(set_to_none=True)
            _let_go(encoder.device)


def _ours(step: Step, budget: int, graph_bytes: int = 0) -> float:
    return cached_backward(
        step.encoder,
        step.texts,
        lambda vectors_UD: batch_loss(vectors_UD, step.texts, step.batch, step.config, step=0),
        budget_tokens=budget,
        graph_bytes=graph_bytes,
        bf16=True,
    ).padding_share


def _released(step: Step) -> float:
    with torch.autocast(step.encoder.device.type, torch.bfloat16):
        try:
            return peers.release_step(step.encoder, step.texts, step.batch, step.config)
        finally:
            peers.checkpoint_activations(step.encoder.model, on=False)
            step.encoder.model.eval()


def _mnrl_sides(folder: Path, step: Step, budget: int) -> Iterator[tuple[str, Callable[[], float]]]:
    model = _peer(folder, step.encoder)
    width = len(step.texts.passage_C) // len(step.texts.query_B)

    def autocast(run: Callable[[], float]) -> float:
        with torch.autocast(step.encoder.device.type, torch.bfloat16):
            return run()

    for name, tokens in ((MNRL, None), (MNRL_TOKENS, budget)):
        run = peers.mnrl_step(model, step.texts, passages=width, budget_tokens=tokens)
        yield name, functools.partial(autocast, run)


def _measure(bench: Bench, row: Row, encoder: Encoder, run: Callable[[], Any], *, repeats: int = REPEATS) -> Any:
    """What `run` gave last, and into `row` what it took; a gradient stays in the weights. Repeated while time lasts."""
    cuda, result = bench.device.type == "cuda", None
    for number in range(repeats):
        if not bench.time_for(1.2 * (row.runs[-1] if row.runs else row.tokens / bench.pace.get(row.size, math.inf))):
            row.note = f"{number} of {repeats} runs: the time was up"
            break
        encoder.model.zero_grad(set_to_none=True)
        _let_go(bench.device)
        before = torch.cuda.memory_allocated() if cuda else 0
        began = time.perf_counter()
        try:
            result = run()
        except torch.OutOfMemoryError:
            row.note = "memory ran out"
            break
        peers.finish(bench.device)
        row.runs.append(round(time.perf_counter() - began, 4))
        bench.pace[row.size] = max(bench.pace.get(row.size, 0.0), row.tokens / row.runs[-1])
        if cuda:
            held = sum(p.grad.nbytes for p in encoder.model.parameters() if p.grad is not None)
            row.peak_gib = (torch.cuda.max_memory_allocated() - before - held) / 2**30
    if row.runs:
        row.seconds = statistics.median(row.runs)
        row.tokens_per_s = row.tokens / row.seconds
    return result


def _measure_step(bench: Bench, row: Row, step: Step, run: Callable[[], float], *, repeats: int = REPEATS) -> Row:
    """`row` with what a step took, its padding and its share of the matrix rate."""
    row.tokens = step.tokens
    row.padding = _measure(bench, row, step.encoder, run, repeats=repeats)
    row.mfu = step.useful / row.seconds / bench.rate if row.seconds else None
    return row


def _gradient(encoder: Encoder) -> Tensor | None:
    """All of it, flat and on the CPU; None if there is too much."""
    found = [(name, p.grad) for name, p in encoder.model.named_parameters() if p.grad is not None]
    if sum(gradient.numel() for _, gradient in found) > COMPARED:
        return None
    return torch.cat([gradient.flatten().cpu() for _, gradient in sorted(found, key=lambda pair: pair[0])])


def _compare(row: Row, other: Row | None, gradients: dict[str, Tensor]) -> None:
    """Say how `row` stands to the side that computes the same."""
    if other is None or not other.seconds or not row.seconds:
        return
    row.against, row.speed = other.side, other.seconds / row.seconds
    if row.side in gradients and other.side in gradients:
        pair = (gradients.pop(row.side).double(), gradients[other.side].double())
        row.cosine = float(torch.nn.functional.cosine_similarity(*pair, dim=0))


def _encode(bench: Bench, size: str, folder: Path, tokenizer: Tokenizer) -> None:
    """Texts to vectors, all sides in bfloat16 weights."""
    encoder = _encoder(size, tokenizer, torch.bfloat16, bench.device)
    draw = text_drawer(1)
    texts = [draw() for _ in range(SIZES[size].texts)]
    tokens = sum(map(len, encoder.tokenize(texts)))
    peer = _peer(folder, encoder)

    def theirs(some: list[str]) -> Any:
        return peer.encode(some, show_progress_bar=False)

    reference, seconds = None, 0.0
    for name, encode in ((PEER, theirs), (OURS, encoder.encode), (PACKED, encoder.encode)):
        row = Row("encode", size, name, tokens=tokens)
        if name == PACKED and (refused := _pack(encoder)):
            bench.add(msgspec.structs.replace(row, note=refused))
            return
        with torch.inference_mode():
            encode(texts[:WARM_UP])
            vectors_ND = _measure(bench, row, encoder, functools.partial(encode, texts))
        if reference is None:
            reference, seconds = vectors_ND, row.seconds
        elif vectors_ND is not None and seconds:
            row.against, row.speed = PEER, seconds / row.seconds
            row.cosine = float((reference * vectors_ND).sum(axis=1).min())
        bench.add(row)


def _let_go(device: torch.device) -> None:
    """Give back what nothing holds any more, and count the peak of memory anew."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
