"""Client and server as two processes that a measurement drives, and the promise that nothing of them stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError

# One thread a party: both run on one machine here, and a timing should not depend on what else a library starts.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
MAXIMUM_BUNDLE_BYTES = 1 << 30  # of a server's bundle of any network that is measured
_FAREWELL_SECONDS = 10.0  # how long a process whose output has ended may take to end itself


class Pair:
    """A server and a client process of one session, set up, its pool filled, waiting for images.

    A context manager: both processes and all pipes are gone behind its block, however that ends.

    Args:
        network, policy: the files that the server is given; the client gets the policy too and insists on it.
        dataset: the prepared data set.
        report: where the server writes its ledger.
        pool: bundles that the client keeps ready.
        threads: of each process's numerical libraries.
        options: of both programs: time-out, link.

    Raises:
        UserError: a program stopped; it has said why on standard error.
    """

    def __init__(
        self,
        network: Path,
        policy: Path,
        dataset: Path,
        report: Path,
        pool: int = 0,
        threads: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        self._report = report
        self._environment = {
            **os.environ,
            **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.client_phases: list[dict[str, Any]] = []
        self.client_peak_memory = 0
        self._processes = contextlib.ExitStack()
        with contextlib.ExitStack() as failing:
            failing.callback(self.stop)
            files = ["--network", str(network), "--policy", str(policy), "--report", str(report)]
            # It serves this measurement alone, so nothing is kept back: neither outputs nor memory for the pool.
            bounds = ["--clients", "1", "--pool", str((pool + 1) * MAXIMUM_BUNDLE_BYTES), "--allow-approximate-logits"]
            self._server = self._start("server", [*files, *bounds, *options])
            address = self._line("server", self._server)
            session = ["--connect", address, "--dataset", str(dataset), "--policy", str(policy), "--pool", str(pool)]
            self._client = self._start("client", [*session, *options])
            self._answer()
            failing.pop_all()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, program: str, options: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"autoprivacy.protocol.{program}", *options],
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE if program == "client" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._processes.callback(_end, process)
        return process

    def _line(self, program: str, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.endswith("\n"):
            raise self._stopped(program, process)
        return line.strip()

    @staticmethod
    def _stopped(program: str, process: subprocess.Popen[str]) -> UserError:
        try:
            status = f"with status {process.wait(_FAREWELL_SECONDS)}"
        except subprocess.TimeoutExpired:
            status = "answering"
        return UserError(f"the {program} stopped {status}; its message is above")

    def _answer(self) -> dict[str, Any]:
        """The client's next line."""
        answer: dict[str, Any] = json.loads(self._line("client", self._client))
        self.client_phases += answer["phases"]
        self.client_peak_memory = answer["peak_memory_bytes"]
        return answer

    def infer(self, *images: int) -> list[dict[str, Any]]:
        """Private inferences, asked for at once and made one after the other; the client's answers.

        Raises:
            UserError: the client stopped.
        """
        assert self._client.stdin is not None
        try:
            self._client.stdin.write("".join(f"{image}\n" for image in images))
            self._client.stdin.flush()
        except BrokenPipeError:
            raise self._stopped("client", self._client) from None
        return [self._answer() for _ in images]

    def finish(self) -> dict[str, Any]:
        """End the session and both processes; what the server recorded.

        Raises:
            UserError: a party failed.
        """
        assert self._client.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a client that has stopped is told of where its answer is missing
            self._client.stdin.close()
        self._answer()
        if self._client.wait() or self._server.wait():
            raise UserError("a party failed at the end of the session; see its message above")
        self.stop()
        record: dict[str, Any] = json.loads(self._report.read_text())
        return record

    def stop(self) -> None:
        """Stop both processes, if they still run, at once; any number of times."""
        self._processes.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process that still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # bytes that the process will not read
                stream.close()
