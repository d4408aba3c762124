"""Private inference by another system beside ours: networks exported for it, and a relay that shapes its connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.quantization.float_graph import FloatGraph

HOST = "127.0.0.1"
CHUNK = 1 << 16  # bytes that the relay forwards at a time
TIMEOUT = 1800.0  # seconds that an inference may take


def export(graph: FloatGraph, image: np.ndarray, path: Path) -> None:
    """Write a float network and a normalised image [1, C, H, W] as `path`.npz and its nodes as `path`.json."""
    arrays, nodes = {"image": image}, []
    for node in graph.nodes:
        entry: dict[str, Any] = {"name": node.name, "operation": node.operation, "inputs": list(node.inputs)}
        entry |= {"window": node.window, "strides": node.strides, "before": node.before, "after": node.after}
        if node.operation == "linear":
            layer = graph.layers[node.name]
            entry |= {"stride": layer.shape.stride, "padding": layer.shape.padding, "groups": layer.shape.groups}
            arrays[f"{node.name}.weight"] = layer.weight.numpy()
            arrays[f"{node.name}.bias"] = layer.bias.numpy()
        nodes.append(entry)
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    path.with_suffix(".json").write_text(json.dumps(nodes))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


class Relay:
    """Forwards connections between ports, each direction late by half the round trip and at the link's rate.

    Attributes:
        forwarded: bytes of all connections and both directions.

    Args:
        routes: pairs of the port to listen at and the port to forward to.
        bits_per_second: of each direction of the link, shared by its connections; None for no limit.
        round_trip_seconds: added to every exchange.
    """

    def __init__(
        self, routes: Sequence[tuple[int, int]], bits_per_second: float | None, round_trip_seconds: float
    ) -> None:
        self.forwarded = 0
        self._routes, self._rate, self._delay = routes, bits_per_second, round_trip_seconds / 2
        # when a direction's link is free again; a route's requests go one way, its answers the other
        self._free = {(route, way): 0.0 for route in range(len(routes)) for way in range(2)}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        for number, (port, target) in enumerate(self._routes):
            asyncio.run_coroutine_threadsafe(self._listen(number, port, target), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        """End what listens and what is on its way, and close every connection."""
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def _listen(self, number: int, port: int, target: int) -> None:
        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                back, out = await asyncio.open_connection(HOST, target)
            except OSError:  # the other party does not listen yet: its peer tries again
                writer.close()
                return
            await asyncio.gather(self._pump(number, 0, reader, out), self._pump(number, 1, back, writer))

        self._servers.append(await asyncio.start_server(connect, HOST, port))

    async def _pump(self, route: int, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            try:
                while True:
                    due, data = await queue.get()
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        break
                    with contextlib.suppress(OSError):
                        writer.write(data)
                        await writer.drain()
            finally:
                writer.close()

        delivering = asyncio.ensure_future(deliver())
        while True:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            self.forwarded += len(data)
            sent = max(self._free[route, way], time.monotonic())
            sent += 8 * len(data) / self._rate if self._rate else 0.0
            self._free[route, way] = sent
            await queue.put((sent + self._delay, data))
            if not data:
                break
            await asyncio.sleep(max(0.0, sent - time.monotonic() - self._delay))
        await delivering


@contextlib.contextmanager
def _no_relay() -> Iterator[None]:
    yield None


def cheetah_inference(
    python: Path, script: Path, network: Path, bits_per_second: float | None, round_trip_seconds: float
) -> dict[str, Any]:
    """One inference by SPU's Cheetah over a connection that is shaped where a rate is given.

    Args:
        python: of the peers' environment.
        script: scripts/peers/cheetah.py.
        network: as `export` wrote it.

    Returns:
        setup_seconds, seconds, outputs, reference, and bytes (None without a relay, which counts them).

    Raises:
        UserError: the program failed; the message holds the end of what it said.
    """
    listen, seen = free_ports(2), free_ports(2)
    shaped = bits_per_second is not None
    relay = (
        Relay([(seen[0], listen[0]), (seen[1], listen[1])], bits_per_second, round_trip_seconds)
        if shaped
        else _no_relay()
    )
    addresses = [f"{HOST}:{port}" for port in listen]
    peers = [f"{HOST}:{port}" for port in (seen if shaped else listen)]
    with relay as running:
        command = [str(python), str(script), "--network", str(network), "--listen", *addresses, "--peers", *peers]
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    if run.returncode:
        raise UserError(f"{script}: exit status {run.returncode}: {run.stderr.strip()[-300:]}")
    result: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return {**result, "bytes": running.forwarded if isinstance(running, Relay) else None}
