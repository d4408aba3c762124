"""Measures private inference: one server and one client process per scheme, schemes interleaved image by image, every
output compared with the integer network's; on request also many images in a row while a pool of bundles runs dry."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.policy import Policy

# One thread a party: both run on one machine here, and a timing should not hang on what else a library starts.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class NetworkSetting:
    """What the connection behaves like; without `bits_per_second` as fast as it is (both parties on one machine)."""

    name: str
    bits_per_second: float | None = None
    round_trip_seconds: float = 0.0

    def options(self) -> list[str]:
        """As the two programs take it."""
        if self.bits_per_second is None:
            return []
        shape = (self.bits_per_second, self.round_trip_seconds)
        return ["--bits-per-second", str(shape[0]), "--round-trip-seconds", str(shape[1])]


@dataclass(frozen=True)
class Throughput:
    """A run of `images` images at once, of which the first `pool` find bundles that were prepared ahead."""

    pool: int
    images: int


@dataclass(frozen=True)
class MeasureSettings:
    """How private inference is measured.

    Attributes:
        images: measured per scheme.
        warm_up_images: run first and not counted.
        timeout: seconds of silence that end a session.
        threads: of each party's numerical libraries.
        throughput: the run of many images; None leaves it out.
        network: the connection.
    """

    images: int
    warm_up_images: int = 1
    timeout: float = 120.0
    threads: int = 1
    throughput: Throughput | None = None
    network: NetworkSetting = NetworkSetting("loopback")


class Pair:
    """A server and a client process of one contender, set up, `pool` bundles prepared, waiting for images."""

    def __init__(
        self, contender: Contender, dataset: Path, report: Path, settings: MeasureSettings, pool: int = 0
    ) -> None:
        network, policy = contender.network, contender.policy
        self._report = report
        self._settings = settings
        self._processes: list[subprocess.Popen[str]] = []
        try:
            files = ["--network", str(network), "--policy", str(policy), "--report", str(report)]
            self._server = self._start("server", [*files, "--pool", str(pool + 1)])
            address = self._line("server", self._server)
            options = ["--connect", address, "--dataset", str(dataset), "--policy", str(policy), "--pool", str(pool)]
            self._client = self._start("client", options)
            self.client_phases: list[dict[str, Any]] = []
            self.client_peak_memory = 0
            self._answer()
        except BaseException:
            self.stop()
            raise

    def _start(self, program: str, options: list[str]) -> subprocess.Popen[str]:
        library = str(Path(__file__).parents[2])
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self._settings.threads))
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"autoprivacy.protocol.{program}",
                *options,
                "--timeout",
                str(self._settings.timeout),
                *self._settings.network.options(),
            ],
            env={**os.environ, **threads, "PYTHONPATH": library},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    @staticmethod
    def _line(program: str, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UserError(f"the {program} stopped with status {process.wait()}; its message is above")
        return line.strip()

    def _answer(self) -> dict[str, Any]:
        """The client's next line."""
        answer: dict[str, Any] = json.loads(self._line("client", self._client))
        self.client_phases += answer["phases"]
        self.client_peak_memory = answer["peak_memory_bytes"]
        return answer

    def infer(self, *images: int) -> list[dict[str, Any]]:
        """Private inferences, asked for at once and made one after the other; the client's answers."""
        assert self._client.stdin is not None
        self._client.stdin.write("".join(f"{image}\n" for image in images))
        self._client.stdin.flush()
        return [self._answer() for _ in images]

    def finish(self) -> dict[str, Any]:
        """End both processes and return what the server recorded."""
        assert self._client.stdin is not None
        self._client.stdin.close()
        self._answer()
        if self._client.wait() or self._server.wait():
            raise UserError("a party failed at the end of the session; see its message above")
        return json.loads(self._report.read_text())

    def stop(self) -> None:
        """Stop both processes, if they still run, at once."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # bytes that the process will not read
                        stream.close()


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    lower, median, upper = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "lower_quartile": float(lower), "upper_quartile": float(upper)}


def _merge(
    client: list[dict[str, Any]], server: list[dict[str, Any]], bundle: int | None, phase: str
) -> dict[str, Any]:
    def of(phases: list[dict[str, Any]]) -> dict[str, Any]:
        return next(p for p in phases if p["phase"] == phase and p["bundle"] == bundle)

    return {"client": of(client), "server": of(server)}


@dataclass(frozen=True)
class Contender:
    """What is measured: an integer network under a policy.

    Attributes:
        network, policy: the files.
        expected: the integer network's outputs modulo the policy's p for the measured images, int64 [images, classes].
    """

    network: Path
    policy: Path
    expected: np.ndarray


def measure(
    contenders: Sequence[Contender], dataset: Path, labels: np.ndarray, settings: MeasureSettings
) -> list[dict[str, Any]]:
    """Run the protocol for every contender on the first test images and return one record each.

    Args:
        contenders: measured in turn, image by image, so that a slow moment of the machine meets all of them.
        dataset: the prepared data set.
        labels: the measured images' classes.
        settings: see MeasureSettings.
    """
    pairs: list[Pair] = []
    outputs: list[list[list[int]]] = [[] for _ in contenders]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for index, contender in enumerate(contenders):
                pairs.append(Pair(contender, dataset, Path(scratch) / f"{index}.json", settings))
            for image in [0] * settings.warm_up_images + list(range(settings.images)):
                for pair, answers in zip(pairs, outputs, strict=True):
                    answers.append(pair.infer(image)[0]["outputs"])
                logging.info("image %d of %d done", image + 1, settings.images)
            servers = [pair.finish() for pair in pairs]
        finally:
            for pair in pairs:
                pair.stop()
    records = []
    for contender, pair, server, answers in zip(contenders, pairs, servers, outputs, strict=True):
        kept = np.asarray(answers[settings.warm_up_images :])
        phases = (pair.client_phases, server["phases"])
        memory = {"client": pair.client_peak_memory, "server": server["peak_memory_bytes"]}
        measured = record(Policy.load(contender.policy), *phases, kept, contender, labels, settings)
        rate = throughput(contender, dataset, settings) if settings.throughput else None
        records.append({**measured, "peak_memory_bytes": memory, "throughput": rate})
    return records


def throughput(contender: Contender, dataset: Path, settings: MeasureSettings) -> dict[str, Any]:
    """Many images at once, the first from bundles prepared ahead, the others as if there had never been a pool.

    Returns:
        pool, images, and how many differed from the integer network's in any output; images_per_second of the whole
        run; for images with a bundle from the pool and for the others the client's seconds per image, median and
        quartiles (None where there are none).
    """
    assert settings.throughput is not None
    pool, count = settings.throughput.pool, settings.throughput.images
    asked = [index % len(contender.expected) for index in range(count)]
    with tempfile.TemporaryDirectory() as scratch:
        pair = Pair(contender, dataset, Path(scratch) / "report.json", settings, pool)
        try:
            start = time.perf_counter()
            answers = pair.infer(*asked)
            seconds = time.perf_counter() - start
            pair.finish()
        finally:
            pair.stop()
    rows: dict[bool, list[float]] = {True: [], False: []}
    for answer in answers:
        rows[answer["prepared_ahead"]].append(answer["seconds"])
    expected = contender.expected[asked]
    outputs = np.asarray([answer["outputs"] for answer in answers])
    return {
        "pool": pool,
        "images": count,
        "images_differing": int((outputs != expected).any(axis=1).sum()),
        "images_per_second": count / seconds,
        "seconds_from_pool": summary(rows[True]) if rows[True] else None,
        "seconds_pool_dry": summary(rows[False]) if rows[False] else None,
    }


def record(
    policy: Policy,
    client: list[dict[str, Any]],
    server: list[dict[str, Any]],
    outputs: np.ndarray,
    contender: Contender,
    labels: np.ndarray,
    settings: MeasureSettings,
) -> dict[str, Any]:
    """The measurement of one policy: set-up, every image after those of the warm-up, medians with quartiles."""
    skip, network = settings.warm_up_images, settings.network
    images, expected = [], contender.expected
    for index in range(len(outputs)):
        offline = _merge(client, server, index + skip, "offline")
        online = _merge(client, server, index + skip, "online")
        images.append(
            {
                "image": index,
                "label": int(labels[index]),
                "prediction": int(outputs[index].argmax()),
                "expected_prediction": int(expected[index].argmax()),
                "differing_outputs": int((outputs[index] != expected[index]).sum()),
                "largest_difference": int(np.abs(outputs[index] - expected[index]).max()),
                "offline": offline,
                "online": online,
            }
        )
    set_up = _merge(client, server, None, "set-up")
    return {
        "network": policy.network,
        "scheme": policy.scheme,
        "packing": policy.packing,
        "flooding": {"kind": policy.flooding.kind, "kappa": policy.flooding.kappa},
        "network_setting": network.name,
        "link": {"bits_per_second": network.bits_per_second, "round_trip_seconds": network.round_trip_seconds},
        "exact": policy.promises_exactness(),
        "set_up": set_up,
        "summary": _totals(set_up, images),
        "images": images,
    }


def _totals(set_up: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds on the client's clock (it waits for the server's last message), bytes in both directions."""

    def traffic(phase: dict[str, Any]) -> float:
        return phase["client"]["bytes_sent"] + phase["client"]["bytes_received"]

    def cpu(phase: dict[str, Any]) -> float:
        return phase["client"]["cpu_seconds"] + phase["server"]["cpu_seconds"]

    return {
        "t_setup": set_up["client"]["seconds"],
        "m_setup": traffic(set_up),
        "cpu_setup": cpu(set_up),
        "t_pre": summary([image["offline"]["client"]["seconds"] for image in images]),
        "t_on": summary([image["online"]["client"]["seconds"] for image in images]),
        "t_total": summary([sum(image[p]["client"]["seconds"] for p in ("offline", "online")) for image in images]),
        "m_pre": summary([traffic(image["offline"]) for image in images]),
        "m_on": summary([traffic(image["online"]) for image in images]),
        "cpu_pre": summary([cpu(image["offline"]) for image in images]),
        "cpu_on": summary([cpu(image["online"]) for image in images]),
    }
