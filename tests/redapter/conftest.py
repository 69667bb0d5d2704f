"""What the training tests share: examples in two domains, whose texts repeat across queries, and validation queries."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch

from reasonembed.beir import Collection
from reasonembed.corpora import Corpus
from reasonembed.encoder.lora import LoraSettings, add_lora, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.files import sha256_json
from reasonembed.records import Document, Query
from reasonembed.redapter.batches import Batch, epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import cached_backward, tokenize_batch
from reasonembed.redapter.objective import batch_loss
from reasonembed.texts import text_key


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are tiny: more threads only get in each other's way


def make_example(domain: str, number: int, *, positives: int = 2, negatives: int = 4) -> TrainingExample:
    """Example `number`: its last negative is a positive of the next one."""
    texts = [f"{domain} principle {number} of drift and heat " + "graph " * index for index in range(positives)]
    others = [f"{domain} lure {index} price " + "torque " * (number % 3) for index in range(negatives - 1)]
    others.append(f"{domain} principle {number + 1} of drift and heat ")
    return TrainingExample(
        example_id=f"{domain}-{number}",
        domain=domain,
        instruction=f"Given a {domain} post, find passages.",
        query=f"why does {domain} {number} boil " + "at altitude " * (number % 4),
        reasoning_query=f"principle {number} the reason of {domain} " + "is memory " * (number % 3),
        positives=tuple(texts),
        negatives=tuple(others),
        group_size=4,
        global_queries=4,
        never_negative=frozenset(text_key(text) for text in texts),
    )


@pytest.fixture
def examples() -> list[TrainingExample]:
    """Six examples of biology and five of pony: two batches each, the last one smaller."""
    return [make_example("biology", n) for n in range(6)] + [make_example("pony", n) for n in range(5)]


@pytest.fixture(scope="module")
def rows() -> list[TrainingExample]:
    """Nine examples of biology, whose last negative is a positive of the next one, and five of pony."""
    return [make_example("biology", n) for n in range(9)] + [make_example("pony", n) for n in range(5)]


LoadToTrain = Callable[[Path, str, str], Encoder]
GradientsOf = Callable[..., tuple[dict[str, torch.Tensor], float]]
STEP = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05)


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    """Five examples of biology, four passages each."""
    (batch,) = epoch_batches(examples[:5], seed=3, epoch=0, group_size=4, global_queries=5)
    return batch


@pytest.fixture(scope="session")
def load_to_train() -> LoadToTrain:
    """A model in a type of weights, of which all trains, or its last layer ("frozen"), or adapters ("lora")."""

    def load(folder: Path, dtype: str, how: str) -> Encoder:
        encoder = Encoder.load(folder, dtype=dtype, device="cpu")
        train_last_layers(encoder.model, 1 if how == "frozen" else None)
        if how == "lora":
            torch.manual_seed(0)
            encoder.model = add_lora(encoder.model, LoraSettings(rank=4, alpha=8)).to(getattr(torch, dtype))
            for parameter in encoder.model.parameters():
                parameter.data.add_(0.02 * parameter.requires_grad)
        return encoder

    return load


@pytest.fixture(scope="session")
def gradients_of() -> GradientsOf:
    """The gradient of a batch in each weight that has one, and the share of padding."""

    def gradients(
        encoder: Encoder, batch: Batch, *, budget: int, graph_bytes: int, bf16: bool = False
    ) -> tuple[dict[str, torch.Tensor], float]:
        texts = tokenize_batch(encoder, batch, STEP)
        loss_of = functools.partial(batch_loss, texts=texts, batch=batch, config=STEP, step=0)
        outcome = cached_backward(encoder, texts, loss_of, budget_tokens=budget, graph_bytes=graph_bytes, bf16=bf16)
        assert outcome.graph_kept == (graph_bytes > 0)
        found = {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}
        encoder.model.zero_grad()
        return found, outcome.padding_share

    return gradients


def _collection(domain: str) -> Collection:
    """Queries in the words of the training data, with other numbers, and one document excluded for the first."""
    texts = [f"{domain} principle {n} of drift and heat " + "graph " * (n % 3) for n in range(30)]
    documents = {f"d{n}": Document(f"d{n}", text) for n, text in enumerate(texts)}
    corpus = Corpus(documents, origin="here", sha256=sha256_json(texts))
    queries = {f"q{n}": Query(f"q{n}", f"why does {domain} {n} boil at altitude") for n in range(20, 28)}
    qrels = {query_id: {f"d{query_id[1:]}": 2, f"d{int(query_id[1:]) - 9}": 1} for query_id in queries}
    return Collection(domain, corpus, queries, qrels, excluded={"q20": frozenset({"d0", "d3"})})


@pytest.fixture(scope="module")
def collections() -> dict[str, Collection]:
    """A domain that is trained on, and one that is not."""
    return {"biology": _collection("biology"), "robotics": _collection("robotics")}


@pytest.fixture(scope="session")
def training_job(tiny_models: dict[str, Path]) -> Callable[..., dict[str, Any]]:
    """Makes the job for `world.py` that trains the tiny Qwen3 in float32 on a folder's `examples.json`, into `into` or
    its own name there; it checkpoints every second step and keeps all. `changes` are to its settings.
    """
    config = TrainConfig(
        start_step=2,
        learning_rate=2e-3,
        weight_decay=0.1,
        max_query_tokens=48,
        max_passage_tokens=32,
        checkpoint_every_steps=2,
        keep_checkpoints=10,
    )

    def job(
        folder: Path,
        name: str,
        size: int,
        *,
        into: str | None = None,
        happens: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        arguments = {
            "data": str(folder / "examples.json"),
            "base": str(tiny_models["qwen3"]),
            "out": str(folder / (into or name)),
            "config": msgspec.structs.replace(config, **changes),
            "happens": happens,
            "dtype": "float32",
            "environment": environment,
        }
        return {"name": name, "size": size, "run": "train", "arguments": arguments}

    return job


class Worlds(NamedTuple):
    """What worlds of processes left."""

    folder: Path
    codes: dict[str, list[int]]  # job -> exit codes of its processes
    said: str


@pytest.fixture(scope="session")
def run_worlds() -> Iterator[Callable[[Path, list[dict[str, Any]]], Worlds]]:
    """Runs jobs by `world.py`, which leaves what they compute in a folder."""
    command = [sys.executable, str(Path(__file__).with_name("world.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as world:
        assert world.stdin is not None and world.stdout is not None
        asked, answers = world.stdin, world.stdout

        def run(folder: Path, jobs: list[dict[str, Any]]) -> Worlds:
            (folder / "jobs.json").write_bytes(msgspec.json.encode(jobs))
            print(folder, file=asked, flush=True)
            answer, said = answers.readline(), (folder / "said.txt").read_text()
            assert answer == "done\n", said
            return Worlds(folder, msgspec.json.decode((folder / "results.json").read_bytes()), said)

        yield run
