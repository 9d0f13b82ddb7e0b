"""Two ways into a kind cluster, to the same server: its NodePort, and a port-forward."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from benchmarks.rows import Row
from jslab.deployment.forward import Forward
from jslab.deployment.kind import KindDeployment
from jslab.lab import Lab
from jslab.publishing import publish_many

STREAM, SUBJECT = "BENCHMARK", "bench.doors"
MESSAGES, SIZE, BATCH = 50_000, 128, 1_000
CLIENT_PORT = 4222
ROUNDS = 3
BASE = "NodePort"


async def run(lab: Lab) -> list[Row]:
    """Publish and fetch through both, in turns. On another backend than kind there are no two doors."""
    if not isinstance(lab.deployment, KindDeployment):
        print("doors: nothing to compare on this backend; --backend kind has two", file=sys.stderr)
        return []
    cluster, server = lab.deployment.cluster, lab.deployment.servers()[0]
    forward = Forward(lambda: cluster.forward(server.name, CLIENT_PORT), CLIENT_PORT)
    await forward.start()
    clients = {
        BASE: await nats.connect(server.client_url),
        "port-forward": await nats.connect(f"nats://127.0.0.1:{forward.port}"),
    }
    try:
        return [
            *await _compare(lab, clients, f"publish_many {SIZE} bytes", _publish),
            *await _compare(lab, clients, f"fetch({BATCH}) {SIZE} bytes, ack none", _fetch),
        ]
    finally:
        for client in clients.values():
            await client.close()
        await forward.close()


async def _compare(
    lab: Lab, clients: dict[str, Client], benchmark: str, work: Callable[[Client], Awaitable[None]]
) -> list[Row]:
    rates: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, client in clients.items():
            stream = await lab.stream(STREAM, subjects=[SUBJECT], num_replicas=3)
            if work is _fetch:
                await _publish(clients[BASE])
            began = perf_counter()
            await work(client)
            rates[name].append(MESSAGES / (perf_counter() - began))
            await lab.js.delete_stream(stream.name)
    base = median(rates[BASE])
    return [
        Row(benchmark, name, median(runs), "messages/s", tuple(runs), *compared)
        for name, runs in rates.items()
        for compared in [() if name == BASE else (median(runs) / base, BASE)]
    ]


async def _publish(client: Client) -> None:
    report = await publish_many(client.jetstream(), STREAM, [bytes(SIZE)] * MESSAGES, subject=SUBJECT)
    assert report.acked == MESSAGES, report


async def _fetch(client: Client) -> None:
    js = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=30, mem_storage=True)
    consumer = await js.add_consumer(STREAM, config)
    reader = await js.pull_subscribe_bind(consumer.name, STREAM)
    seen = 0
    while seen < MESSAGES:
        seen += len(await reader.fetch(BATCH, timeout=10))
    await reader.unsubscribe()
