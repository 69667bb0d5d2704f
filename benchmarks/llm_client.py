"""CPU per request of the chat client with 512 requests in flight: ours, journal included, beside AsyncOpenAI.

    python benchmarks/llm_client.py [--requests 40960] [--peer-requests N] [--in-flight 512]
        [--latency-s 0.5]

A null server in a process of its own answers each request after a fixed latency. For each client the table
shows the CPU time that its own process spent per request, the share of what that latency allows, and the peak of its
resident memory. --peer-requests 0 leaves the peer out, for a run of a million requests.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec

PROMPT = "What bends light at the edge of water, and by how much? " * 40  # some 2,200 characters
TEXT = "The ratio of the speeds decides; work it through with the angles given. " * 15


class Measured(NamedTuple):
    cpu_ms: float  # per request
    seconds: float
    peak_mib: float  # of resident memory, the libraries included


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=40960)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--peer-requests", type=int, help="default: a twentieth; it is some ten times slower")
    parser.add_argument("--latency-s", type=float, default=0.5)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(there, options.latency_s), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    asked = options.peer_requests
    if asked is None:
        asked = max(options.in_flight, options.requests // 20)
    try:
        ours = in_child(spawn, run_ours, url, options.requests, options.in_flight)
        peer = in_child(spawn, run_official, url, asked, options.in_flight) if asked else None
    finally:
        server.terminate()
        server.join()
    print_table(options, {"reasonembed, with journal": (ours, options.requests), "AsyncOpenAI": (peer, asked)})
    if peer:
        print(f"AsyncOpenAI / ours: {peer.cpu_ms / ours.cpu_ms:.1f} x the CPU per request")


def print_table(options: argparse.Namespace, clients: dict[str, tuple[Measured | None, int]]) -> None:
    print(f"{options.in_flight} in flight, server latency {options.latency_s} s")
    print(f"{'client':<28}{'requests':>12}{'CPU ms/request':>16}{'share of the ideal':>20}{'peak MiB':>10}")
    for name, (measured, requests) in clients.items():
        if measured:
            share = requests / options.in_flight * options.latency_s / measured.seconds
            print(f"{name:<28}{requests:>12,}{measured.cpu_ms:>16.3f}{share:>20.1%}{measured.peak_mib:>10.0f}")


def in_child(spawn, work, *arguments) -> Measured:  # type: ignore[no-untyped-def]
    """Each client has a process of its own, so that neither pays for the other's imports and garbage."""
    here, there = spawn.Pipe()
    child = spawn.Process(target=report, args=(there, work, *arguments))
    child.start()
    measured = here.recv()
    child.join()
    return measured


def report(there: Connection, work: Callable[..., Measured], *arguments: object) -> None:
    there.send(work(*arguments))


def run_ours(url: str, requests: int, in_flight: int) -> Measured:
    from reasonembed.llm.chat import Message, Request, Sampling
    from reasonembed.llm.door import open_door
    from reasonembed.llm.endpoint import ClientConfig

    sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=2048)

    def make_requests(start: int, count: int) -> Iterator[Request]:
        for number in range(start, start + count):
            message = Message("user", f"{PROMPT} ({number})")
            yield Request(f"generate:biology:doc-{number}", (message,), sampling, number)

    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.sqlite"
        with open_door(url, model="null", journal_path=journal, client=ClientConfig(concurrency=in_flight)) as door:
            for _ in door.replies(lambda: make_requests(0, 50), label="warm up"):
                pass
            cpu, wall = time.process_time(), time.perf_counter()
            answered = sum(1 for _ in door.replies(lambda: make_requests(50, requests), label="asking"))
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert answered == requests
    return Measured(1000 * cpu / requests, wall, peak_mib())


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_official(url: str, requests: int, in_flight: int) -> Measured:
    return asyncio.run(_run_official(url, requests, in_flight))


async def _run_official(url: str, requests: int, in_flight: int) -> Measured:
    from openai import AsyncOpenAI

    slots = asyncio.Semaphore(in_flight)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=6) as client:

        async def ask(number: int) -> None:
            async with slots:
                answer = await client.chat.completions.create(
                    model="null",
                    messages=[{"role": "user", "content": f"{PROMPT} ({number})"}],
                    temperature=0.7,
                    top_p=0.95,
                    max_tokens=2048,
                    seed=number,
                )
                assert answer.choices[0].message.content

        await asyncio.gather(*(ask(number) for number in range(50)))
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(ask(number) for number in range(requests)))
        return Measured(1000 * (time.process_time() - cpu) / requests, time.perf_counter() - wall, peak_mib())


class NullServer(asyncio.Protocol):
    """As little HTTP as answers these two clients: each POST gets the same completion after the latency."""

    def __init__(self, latency_s: float, answer: bytes) -> None:
        self.latency_s = latency_s
        self.answer = answer
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) >= length:
            self.received = rest[length:]
            asyncio.get_running_loop().call_later(self.latency_s, self.transport.write, self.answer)  # type: ignore


def serve(there: Connection, latency_s: float) -> None:
    message = {"role": "assistant", "content": TEXT}
    body = msgspec.json.encode(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": "null",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 500, "completion_tokens": 200, "total_tokens": 700},
        }
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: NullServer(latency_s, answer), "127.0.0.1", 0, backlog=2048)
        there.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
