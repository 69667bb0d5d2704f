"""A model in this process: the text that transformers itself writes, one draw for each request, nothing by company."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from reasonembed.errors import BudgetReached, ConfigError, InputError, MissingExtra
from reasonembed.llm.budget import Budget, Purse
from reasonembed.llm.chat import Message, Reply, Request, Sampling
from reasonembed.llm.decoding import Row, Shape, choose, padded_width, write
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.local import LocalBackend
from reasonembed.llm.prices import load_prices

WORDS = ("heat", "water", "memory", "price", "torque", "prime", "path")
TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'refuse me' %}{{ raise_exception('no such talk') }}{% endif %}"
    "<|begin_of_text|>{{ m.role }}: {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|begin_of_text|>assistant:{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %} of the{% endif %}"
)


@pytest.fixture(scope="module")
def writer(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of a few kilobytes that writes, with a chat template; it comes to an end now and then."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("writer")
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen3"])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Qwen3Config.from_pretrained(tiny_models["qwen3"], eos_token_id=list(range(10, 14)))
    torch.manual_seed(1)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def question(number: int, words: int = 5, **sampling: Any) -> Request:
    said = " ".join(random.Random(number).choices(WORDS, k=words))
    defaults = {"temperature": 1.0, "max_tokens": 24} | sampling
    return Request(f"generate:x:{number}", (Message("user", said),), Sampling(**defaults), seed=number)


def replies(spec: Path | LocalBackend, requests: list[Request]) -> list[Reply]:
    backend = spec if isinstance(spec, LocalBackend) else LocalBackend(str(spec))
    with Journal(":memory:") as journal:
        return [reply for _, reply in ChatDoor(backend, journal, concurrency=256).replies(lambda: requests, label="x")]


def test_at_temperature_0_it_writes_what_transformers_writes(writer: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    requests = [question(n, words=3 + 5 * n, temperature=0) for n in range(7)]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(writer), AutoTokenizer.from_pretrained(writer)
    for request, reply in zip(requests, replies(writer, requests), strict=True):
        turns = [{"role": "user", "content": request.messages[0].content}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        written = model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0, ids.shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True)
        assert reply.usage.prompt_tokens == ids.shape[1]
        assert reply.usage.completion_tokens == len(written)
        if written[-1] in model.config.eos_token_id:
            assert reply.text == tokenizer.decode(written[:-1], skip_special_tokens=True).strip()
        else:
            assert reply.failure is not None and reply.failure.kind == "truncated"
            assert reply.failure.detail == text.strip()[-200:]


def test_order_and_company_change_no_reply(writer: Path) -> None:
    """Law 4. Short and long prompts, mixed samplings, alone, in any order and in batches of any filling."""
    backend = LocalBackend(str(writer))
    samplings = ({"temperature": 0}, {"temperature": 1.5, "top_p": 0.9}, {"top_k": 7}, {"temperature": 0.7})
    requests = [question(n, words=2 + 3 * (n % 23), max_tokens=16, **samplings[n % 4]) for n in range(80)]
    together = {reply.custom_id: reply for reply in replies(backend, requests)}
    shuffled = random.Random(0).sample(requests, len(requests))
    assert {reply.custom_id: reply for reply in replies(backend, shuffled)} == together
    for request in requests[::9]:
        assert replies(backend, [request]) == [together[request.custom_id]]
    assert len({reply.text or str(reply.failure) for reply in together.values()}) > 60


def test_neighbours_and_places_do_not_change_a_bit_of_what_the_model_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4 to the last bit, on a model wide enough for kernels with tiles; with 3 rows to a batch this fails."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from reasonembed.llm import decoding

    torch.manual_seed(0)
    config = {"vocab_size": 999, "hidden_size": 256, "intermediate_size": 700, "num_hidden_layers": 2, "head_dim": 64}
    model = Qwen3ForCausalLM(Qwen3Config(**config, num_attention_heads=4, num_key_value_heads=2)).eval()
    draw = random.Random(0)
    rows = [Row([draw.randrange(999) for _ in range(draw.randrange(64, 95))], 4, 1, 1, 999, (n, 0)) for n in range(19)]
    steps: list[torch.Tensor] = []
    monkeypatch.setattr(decoding, "choose", lambda *given: steps.append(given[0].clone()) or choose(*given))

    def logits(order: list[int]) -> dict[int, torch.Tensor]:
        found = {}
        for start in range(0, len(order), 16):
            part = order[start : start + 16]
            steps.clear()
            write(model, [rows[n] for n in part], shape=Shape(96, 4), count=16, ends=frozenset())
            found |= {n: torch.stack([step[place] for step in steps]) for place, n in enumerate(part)}
        return found

    forward, backward, alone = logits(list(range(19))), logits(list(range(18, -1, -1))), logits([7])
    assert all(torch.equal(forward[n], backward[n]) for n in forward)
    assert torch.equal(alone[7], forward[7])


@pytest.mark.parametrize(("max_tokens", "rows"), [(100, 64), (200, 48), (500, 16), (3000, 1)])
def test_a_batch_never_changes_its_shape(
    writer: Path, monkeypatch: pytest.MonkeyPatch, max_tokens: int, rows: int
) -> None:
    backend = LocalBackend(str(writer))
    shapes: list[tuple[int, ...]] = []
    weights = backend.local.weights
    forward = weights.forward
    monkeypatch.setattr(
        weights, "forward", lambda **inputs: shapes.append(tuple(inputs["input_ids"].shape)) or forward(**inputs)
    )
    monkeypatch.setattr(backend.local, "ends", frozenset(range(0, 400, 2)))
    assert Shape(64, max_tokens).rows(backend.local.token_budget) == rows
    replies(backend, [question(n, words=10, max_tokens=max_tokens) for n in range(rows + 1)])
    assert {shape[0] for shape in shapes} == {rows}
    assert {shape[1] for shape in shapes} == {1, 64}


def test_seed_and_sample_decide_what_is_drawn(writer: Path) -> None:
    first = question(1, temperature=1.5)
    other_seed = msgspec.structs.replace(first, seed=2, custom_id="generate:x:2")
    other_sample = msgspec.structs.replace(first, sample_index=1, custom_id="generate:x:1#1")
    said = [reply.text or reply.failure for reply in replies(writer, [first, other_seed, other_sample])]
    assert len(set(map(str, said))) == 3


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1.0, 1.0, 40), (0.5, 0.8, 40), (1.7, 1.0, 3), (1.0, 0.3, 9)]
)
def test_tokens_are_drawn_as_often_as_transformers_says(temperature: float, top_p: float, top_k: int) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    draws = 4000
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(5)) * 2
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    expected = TopKLogitsWarper(top_k)(None, expected)
    expected = TopPLogitsWarper(top_p)(None, expected).double().softmax(-1)[0].numpy()
    row = Row([1], 1, temperature, top_p, top_k, (0, 0))
    even = torch.arange(draws, dtype=torch.float64) / draws
    chosen = choose(logits.expand(draws, -1), [row] * draws, even)
    counts = np.bincount(chosen.numpy(), minlength=40) / draws
    assert np.abs(counts - expected).max() <= 1.5 / draws
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))


def test_greedy_and_drawn_rows_share_a_batch() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(2, -1)
    rows = [Row([1], 1, 0.0, 1.0, 3, (0, 0)), Row([1], 1, 1.0, 1.0, 3, (0, 0))]
    assert choose(logits, rows, torch.tensor([0.999, 0.999], dtype=torch.float64)).tolist() == [1, 0]


@pytest.mark.parametrize("tokens", [0, 1, 63, 64, 65, 95, 96, 127, 128, 500, 4096])
def test_prompts_are_padded_always_and_never_by_more_than_half(tokens: int) -> None:
    assert tokens < padded_width(tokens) <= max(64, 1.5 * tokens + 1)


def test_thinking_is_told_from_the_answer_and_can_be_switched_off(writer: Path) -> None:
    backend = LocalBackend(str(writer))
    local = backend.local
    ids = local._tokenizer("<think>price</think> demand", add_special_tokens=False)["input_ids"]
    assert local.text([*ids, 10]) == "<think>price</think> demand"
    plain, without = (local.prompt(question(1, thinking=thinking)) for thinking in (None, False))
    assert local.text(without[len(plain) :]) == " of the"


def test_a_prompt_beyond_the_window_and_one_that_the_template_refuses_are_final_failures(writer: Path) -> None:
    refused = Request("generate:x:r", (Message("user", "refuse me"),), Sampling(max_tokens=4), seed=1)
    long = question(1, words=3000)
    fine = question(2, temperature=0)
    failures = [reply.failure for reply in replies(writer, [refused, long, fine])][:2]
    assert [failure.kind for failure in failures if failure] == ["invalid", "invalid"]
    assert "no such talk" in str(failures[0]) and "512 at most" in str(failures[1])


def test_the_text_ends_where_the_window_does(writer: Path) -> None:
    backend = LocalBackend(str(writer))
    near = question(3, words=195, max_tokens=300, temperature=0)
    prompt_tokens = len(backend.local.prompt(near))
    assert 212 < prompt_tokens < 512
    (reply,) = replies(backend, [near])
    assert reply.usage.completion_tokens <= 512 - prompt_tokens


def test_the_journal_answers_the_second_time_and_other_weights_are_another_model(
    writer: Path, tmp_path: Path, journal: Journal
) -> None:
    requests = [question(n) for n in range(5)]
    with open_door(f"local:{writer}", journal=journal) as door:
        first = [reply for _, reply in door.replies(lambda: requests, label="x")]
        assert door.payee == f"local:{writer.name}" and door.honours_conditions
    moved = Path(shutil.copytree(writer, tmp_path / writer.name))
    with open_door(f"local:{moved}", journal=journal) as door:
        assert [reply for _, reply in door.replies(lambda: requests, label="x")] == first
        assert door.spent.asked == 0
        assert door.backend.local._weights is None  # type: ignore[attr-defined]
    before = LocalBackend(str(moved)).model
    settings = moved / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"top_k": 3}))
    assert LocalBackend(str(moved)).model != before
    assert LocalBackend(str(moved)).local.top_k == 3
    assert LocalBackend(str(moved))._job(requests[0]).top_k == 3  # type: ignore[union-attr]


def test_budgets_hold_and_the_model_costs_nothing(writer: Path, journal: Journal) -> None:
    purse = Purse(journal, budget=Budget(max_calls=6, max_cost=1.0), prices=load_prices())
    with open_door(f"local:{writer}", journal=journal, purse=purse) as door:
        with pytest.raises(BudgetReached, match="--max-calls 6"):
            list(door.replies(lambda: [question(n) for n in range(20)], label="x"))
    assert len(journal) == 6 and purse.cost == 0


def test_ctrl_c_ends_a_long_batch_at_its_next_token(writer: Path, journal: Journal, monkeypatch: Any) -> None:
    backend = LocalBackend(str(writer))
    backend.local.ends = frozenset()
    door = ChatDoor(backend, journal)
    weights, forward = backend.local.weights, backend.local.weights.forward

    def slow(**inputs: Any) -> Any:
        time.sleep(0.05)
        return forward(**inputs)

    monkeypatch.setattr(weights, "forward", slow)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(door.replies(lambda: [question(n, max_tokens=400) for n in range(3)], label="x"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 5 < 400 * 0.05
    assert len(journal) == 0


def test_what_cannot_write_is_refused_with_the_cure(
    writer: Path, tiny_models: dict[str, Path], tmp_path: Path, journal: Journal, monkeypatch: Any
) -> None:
    with pytest.raises(InputError, match="no chat template"):
        LocalBackend(str(tiny_models["qwen3"]))
    half = Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "half"))
    (half / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.raises(InputError, match=r"lacks 1 weights of a language model, e.g. lm_head.weight"):
        replies(half, [question(1)])
    with pytest.raises(InputError, match="no model folder"):
        LocalBackend(str(tmp_path / "nowhere"))
    with (
        pytest.raises(ConfigError, match="Leave the model out"),
        open_door(f"local:{writer}", journal=journal, model="m"),
    ):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"torch and transformers.*reasonembed\[train\]"):
        LocalBackend(str(writer))
