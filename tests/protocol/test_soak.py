"""A server process under many clients at once, honest, killed, stalled and greedy, for as long as patience lasts."""

import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.protocol_sessions import IMAGES, NETWORK, P_PRIME, POLICY, ROOT, ask_for
from support.reference import reference_forward

from autoprivacy.data.dataset import Dataset, Split, save
from autoprivacy.errors import UserError
from autoprivacy.protocol.channel import HEADER, PROTOCOL_VERSION, Message, ProtocolError
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.endpoints import connect
from autoprivacy.protocol.session import Agreement

TIMEOUT = 3.0  # of the server, in seconds: what a stalled client lasts
PATIENCE = 60.0  # of the clients
CLIENTS, POOL = 6, 3  # the server's bounds
BUNDLE_BYTES = Agreement(NETWORK.architecture, POLICY).lengths.server_bundle_bytes
WARM_UP, CYCLES = 3, 12
GROWTH_BYTES = 16 << 20  # allowed after the warm-up: less than a twentieth of a MiB a session
MESSAGES = 12  # a session with one bundle sends about as many


class ServerProcess:
    """The server program; what the kernel knows of it."""

    def __init__(self, folder: Path) -> None:
        NETWORK.save(folder / "network.npz")
        POLICY.save(folder / "policy.json")
        files = ["--network", str(folder / "network.npz"), "--policy", str(folder / "policy.json")]
        bounds = ["--timeout", str(TIMEOUT), "--clients", str(CLIENTS), "--pool", str(POOL * CLIENTS * BUNDLE_BYTES)]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "autoprivacy.protocol.server", *files, *bounds],
                env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.address = self.process.stdout.readline().strip()
        self.place = Path(f"/proc/{self.process.pid}")

    def memory(self) -> int:
        """Bytes of physical memory."""
        return int(re.search(r"VmRSS:\s+(\d+)", (self.place / "status").read_text()).group(1)) << 10

    def held(self) -> tuple[int, int]:
        """Threads and file descriptors."""
        return len(list((self.place / "task").iterdir())), len(list((self.place / "fd").iterdir()))

    def settle(self, idle: tuple[int, int]) -> None:
        """Wait until no session is left."""
        deadline = time.monotonic() + PATIENCE
        while self.held() != idle:
            assert time.monotonic() < deadline, f"threads and descriptors {self.held()}, without sessions {idle}"
            time.sleep(0.05)


@pytest.fixture
def server(tmp_path):
    """A server process, killed in the end if it still runs."""
    server = ServerProcess(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()
    server.process.stdout.close()


def connected(address: str) -> Client:
    """A client in its session; asks again while the server has too many."""
    deadline = time.monotonic() + PATIENCE
    while True:
        channel = connect(address, PATIENCE)
        try:
            return Client(channel)
        except UserError as error:
            channel.fail(str(error))
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.02, 0.1))


class Crowd:
    """Clients of every kind.

    Attributes:
        seen: digests of the wire labels and tables of every bundle that anyone was given.
        errors: what went wrong in `run`.
        answers: how many right ones came.
    """

    def __init__(self, address: str) -> None:
        self.address, self.seen, self.answers, self.errors = address, [], 0, []
        self._lock = threading.Lock()

    def prepared(self, client: Client):
        bundle = client.prepare()
        with self._lock:
            self.seen += [hash(bytes(chunk[:64])) for kept in bundle.activations.values() for chunk in kept.tables]
            self.seen += [hash(kept.labels[0, :4].tobytes()) for kept in bundle.activations.values()]
        return bundle

    def honest(self) -> None:
        """Fills its pool and uses it in any order."""
        client = connected(self.address)
        bundles = [self.prepared(client) for _ in range(POOL)]
        random.shuffle(bundles)
        for number, bundle in enumerate(bundles):
            assert np.array_equal(client.infer(bundle, IMAGES[number]), EXPECTED[number])
            with self._lock:
                self.answers += 1
        client.close()

    def greedy(self) -> None:
        """Asks for more bundles than it may hold."""
        client = connected(self.address)
        with pytest.raises(ProtocolError, match=f"the pool holds {POOL} bundles already"):
            for _ in range(POOL + 1):
                self.prepared(client)
        client.channel.fail("greedy")

    def twice(self) -> None:
        """Asks for the online phase of a bundle that was used."""
        client = connected(self.address)
        bundle = self.prepared(client)
        client.infer(bundle, IMAGES[0])
        with pytest.raises(ProtocolError, match=f"bundle {bundle.number} was used before"):
            ask_for(client, bundle.number)
        client.channel.fail("twice")

    def killed(self) -> None:
        """Its connection is reset after some message, as the system of a killed process does with unread bytes."""
        client = connected(self.address)
        left, send = [random.randrange(MESSAGES)], client.channel.send

        def sending(message, *parts):
            if left[0] == 0:
                client.channel._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.channel._connection.close()
            left[0] -= 1
            send(message, *parts)

        client.channel.send = sending
        with pytest.raises(ProtocolError):
            while True:
                client.infer(self.prepared(client), IMAGES[0])
        client.channel.fail("killed")

    def stalled(self) -> None:
        """Prepares a bundle, sends half a message and no more until the server hangs up."""
        client = connected(self.address)
        self.prepared(client)
        client.channel._connection.sendall(HEADER.pack(PROTOCOL_VERSION, Message.PREPARE, 8) + bytes(4))
        with pytest.raises(ProtocolError, match=f"nothing from the peer for {TIMEOUT:g} s"):
            client.channel.receive(Message.ENCRYPTED_SHARES)
        client.channel.fail("stalled")

    def run(self, *kinds: str) -> None:
        """All at once, until the last has ended."""

        def one(kind: str) -> None:
            try:
                getattr(self, kind)()
            except BaseException as error:
                self.errors.append(f"{kind}: {error!r}")

        threads = [threading.Thread(target=one, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=2 * PATIENCE)
        assert not any(thread.is_alive() for thread in threads) and self.errors == []


EXPECTED = [reference_forward(NETWORK, image, P_PRIME) for image in IMAGES]
CYCLE = ("honest",) * 5 + ("killed",) * 4 + ("stalled", "greedy", "twice")


@pytest.mark.slow
def test_a_server_serves_whatever_its_clients_do_and_keeps_nothing_of_them(server):
    idle, crowd = server.held(), Crowd(server.address)
    settled = []
    for _ in range(WARM_UP + CYCLES):
        crowd.run(*CYCLE)
        server.settle(idle)
        settled.append(server.memory())
    assert crowd.answers == (WARM_UP + CYCLES) * CYCLE.count("honest") * POOL
    assert len(crowd.seen) > 500 and len(set(crowd.seen)) == len(crowd.seen)  # no bundle was ever handed out again
    assert max(settled[WARM_UP:]) - settled[WARM_UP - 1] < GROWTH_BYTES, [size >> 20 for size in settled]
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=PATIENCE) == 0
    assert all(line.startswith("server: session ended: ") for line in server.log.read_text().splitlines())


@pytest.mark.slow
def test_client_programs_that_are_killed_leave_the_server_serving(server, tmp_path):
    """Real processes and SIGKILL, at moments from the start of the session to its middle."""
    pixels = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(2))
    save(Dataset("made-up", split, split, (0.5,) * 3, (0.25,) * 3, "a test"), tmp_path / "data.npz")
    idle, crowd = server.held(), Crowd(server.address)
    program = [sys.executable, "-m", "autoprivacy.protocol.client", "--connect", server.address]
    for delay in (0.0, 0.01, 0.03, 0.1, 0.3):
        with subprocess.Popen(
            [*program, "--dataset", str(tmp_path / "data.npz"), "--pool", str(POOL)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            while server.held() == idle and process.poll() is None:  # until the session begins
                time.sleep(0.005)
            time.sleep(delay)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"0\n1\n" * 50)
                process.stdin.flush()
            process.kill()
        assert process.returncode == -signal.SIGKILL
        server.settle(idle)
        crowd.run("honest")
    assert "Traceback" not in server.log.read_text()
