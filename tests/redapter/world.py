"""Runs worlds of processes for tests: imports torch once, then forks each job's processes.

For each folder whose path comes as a line on standard input it runs the jobs in `jobs.json`, leaves their results in
`results.json` and what they said in `said.txt`, and answers with a line on standard output.
A job: `name`, `size` (processes), `run` (a function of this file), `arguments`. A result: each process's exit code.
What a job computes it leaves in files.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401
import msgspec
import peft  # noqa: F401
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import BertModel, PreTrainedTokenizerFast, Qwen2Tokenizer, Qwen3Model  # noqa: F401

from reasonembed.encoder.lora import layer_stack
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ReasonEmbedError
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.redapter import train as training
from reasonembed.redapter.batches import epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gather import join_ranks
from reasonembed.redapter.gradcache import cached_backward, tokenize_batch
from reasonembed.redapter.graph import checkpoint_activations
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.sharding import shard_model, whole

PATIENCE_S = 120


class Job(msgspec.Struct):
    name: str
    size: int
    run: str
    arguments: dict[str, Any]


def step(data: str, cases: dict[str, dict[str, Any]], out: str) -> None:
    """Leaves loss, RI weights and gradients of one batch for each case, in a file for each process; of a sharded model
    also how many weights the process held.
    """
    examples = _examples(data)
    for name, case in cases.items():
        config = msgspec.convert(case["config"], TrainConfig)
        ranks = join_ranks(shard=config.shard)
        encoder = Encoder.load(case["model"], dtype=case["dtype"], device="cpu")
        if config.packed:
            encoder.pack(bf16=config.bf16)
        if config.activation_checkpointing:
            checkpoint_activations(layer_stack(encoder.model))
        if ranks.sharded:
            shard_model(encoder.model, ranks)
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in encoder.model.parameters())
        (batch,) = epoch_batches(
            examples[: config.global_queries], seed=3, epoch=0, group_size=4, global_queries=config.global_queries
        )
        texts = tokenize_batch(encoder, batch, config)
        outcome = cached_backward(
            encoder,
            texts,
            functools.partial(batch_loss, texts=texts, batch=batch, config=config, step=0),
            budget_tokens=config.micro_batch_tokens,
            graph_bytes=config.kept_graph_mb << 20,
            bf16=config.bf16,
            ranks=ranks,
        )
        assert outcome.graph_kept == (config.kept_graph_mb > 0 and not ranks.sharded)
        found = {name: whole(p.grad) for name, p in encoder.model.named_parameters() if p.grad is not None}
        found |= {"loss": outcome.losses.loss, "weight_B": outcome.losses.weight_B}
        if ranks.sharded:
            found["held"] = torch.tensor(held)
        save_file({key: tensor.contiguous() for key, tensor in found.items()}, f"{out}/{name}-{ranks.rank}.safetensors")


def train(
    data: str,
    base: str,
    out: str,
    config: dict[str, Any],
    happens: dict[str, Any] | None = None,
    validation: str | None = None,
    dtype: str = "float64",
    environment: dict[str, str] | None = None,
) -> None:
    """A whole training; in float64 equal but for rounding means equal to many digits. Beside `out` each process leaves
    how many numbers its optimiser kept (`out.state-RANK`).

    validation: a folder of BEIR folders.  environment: what a launcher would hand on.

    happens: {"rank", "step", "what"}: a signal's name that this process gets after that step; "no memory" while
    it computes its first or second pass; "infinity" in its gradient.
    """
    Encoder.load = functools.partial(Encoder.load, dtype=dtype)  # type: ignore[method-assign]
    rank = os.environ.get("RANK", "0")
    os.environ |= environment or {}
    _count_state(Path(f"{out}.state-{rank}"))
    if happens and str(happens["rank"]) == rank:
        _arrange(happens["step"], happens["what"])
    queries = load_collections(validation) if validation else None
    settings = msgspec.convert(config, TrainConfig)
    training.train(_examples(data), base, out, settings, keep_work=True, validation=queries)


def leave() -> None:
    """Meets the others, and ends as Python does."""
    join_ranks()
    assert torch.distributed.is_initialized()
    atexit._run_exitfuncs()
    assert not torch.distributed.is_initialized()


def _count_state(path: Path) -> None:
    """From now on each step leaves at `path` how many numbers this process's optimiser keeps."""
    whole = training.train_step

    def train_step(*args: Any, **options: Any) -> Any:
        record = whole(*args, **options)
        state = args[0].optimizer.state_dict()["state"].values()
        path.write_text(str(sum(tensor.numel() for entry in state for tensor in entry.values())))
        return record

    training.train_step = train_step


def _arrange(number: int, what: str) -> None:
    whole, embed = training.train_step, Encoder.embed

    def train_step(*args: Any, step: int, **options: Any) -> Any:
        if what == "no memory" and step + 1 == number:
            Encoder.embed = _failing(embed)  # type: ignore[method-assign]
        if what == "infinity" and step + 1 == number:
            training.take_step = _with_infinity(training.take_step)
        record = whole(*args, step=step, **options)
        if what.startswith("SIG") and step + 1 == number:
            os.kill(os.getpid(), signal.Signals[what])
        return record

    training.train_step = train_step


def _with_infinity(take: Callable[..., float]) -> Callable[..., float]:
    def take_step(optimizer: Any, model: torch.nn.Module, *args: Any, **options: Any) -> float:
        next(p.grad for p in model.parameters() if p.grad is not None).fill_(torch.inf)
        return take(optimizer, model, *args, **options)

    return take_step


def _failing(embed: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`embed`, for which memory runs out in the middle of the first pass, and then in that of a second pass."""
    fails = {False: 1, True: 1}  # with the gradient on: times to come

    def failing(*args: Any, **options: Any) -> torch.Tensor:
        graph = torch.is_grad_enabled()
        if fails[graph] and (not graph or not fails[False]):
            fails[graph] -= 1
            raise torch.OutOfMemoryError("planted")
        return embed(*args, **options)

    return failing


def _examples(data: str) -> list[TrainingExample]:
    return msgspec.json.decode(Path(data).read_bytes(), type=list[TrainingExample])


def _fork(job: Job, rank: int, port: int) -> int:
    """The process id of one of the job's processes."""
    if (child := os.fork()) != 0:
        return child
    code = 99
    try:
        if job.size > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job.size)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(job.size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        globals()[job.run](**job.arguments)
        code = 0
    except ReasonEmbedError as error:
        print(f"{job.name} {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    finally:
        if code == 99:
            traceback.print_exc()
        os._exit(code)


def _wait(children: list[int]) -> list[int]:
    """Their exit codes, -N for a signal; those that hang are killed."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def run_jobs(folder: Path) -> None:
    """Runs the jobs in `jobs.json`, one after the other."""
    jobs = msgspec.json.decode((folder / "jobs.json").read_bytes(), type=list[Job])
    results = {}
    if any(job.arguments.get("environment") for job in jobs):
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed  # noqa: F401  once, not in every process
    for job in jobs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began = time.monotonic()
        results[job.name] = _wait([_fork(job, rank, port) for rank in range(job.size)])
        print(f"{job.name}: {results[job.name]} in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    (folder / "results.json").write_bytes(msgspec.json.encode(results))


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        with (folder / "said.txt").open("w") as said:
            os.dup2(said.fileno(), sys.stdout.fileno())
            os.dup2(said.fileno(), sys.stderr.fileno())
        run_jobs(folder)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
