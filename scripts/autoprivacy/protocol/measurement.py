"""Measures private inference: one server and one client process per scheme, schemes interleaved image by image, every
output compared with the integer network's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
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
class MeasureSettings:
    """images: measured per scheme; warm_up_images: run first and not counted; timeout: seconds; threads: per party."""

    images: int
    warm_up_images: int = 1
    timeout: float = 120.0
    threads: int = 1


class Pair:
    """A server and a client process of one contender, set up and waiting for images."""

    def __init__(self, network: Path, policy: Path, dataset: Path, report: Path, settings: MeasureSettings) -> None:
        self._report = report
        self._settings = settings
        self._processes: list[subprocess.Popen[str]] = []
        try:
            files = ["--network", str(network), "--policy", str(policy), "--report", str(report)]
            self._server = self._start("server", files)
            address = self._line("server", self._server)
            options = ["--connect", address, "--dataset", str(dataset), "--policy", str(policy)]
            self._client = self._start("client", options)
            self.client_phases: list[dict[str, Any]] = json.loads(self._line("client", self._client))["phases"]
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

    def infer(self, image: int) -> list[int]:
        """One private inference, offline and online; the network's integer outputs."""
        assert self._client.stdin is not None
        self._client.stdin.write(f"{image}\n")
        self._client.stdin.flush()
        answer = json.loads(self._line("client", self._client))
        self.client_phases += answer["phases"]
        return answer["outputs"]

    def finish(self) -> list[dict[str, Any]]:
        """End both processes and return what the server recorded."""
        assert self._client.stdin is not None
        self._client.stdin.close()
        if self._client.wait() or self._server.wait():
            raise UserError("a party failed at the end of the session; see its message above")
        return json.loads(self._report.read_text())["phases"]

    def stop(self) -> None:
        """Stop both processes, if they still run, at once."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


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
                report = Path(scratch) / f"{index}.json"
                pairs.append(Pair(contender.network, contender.policy, dataset, report, settings))
            for image in [0] * settings.warm_up_images + list(range(settings.images)):
                for pair, answers in zip(pairs, outputs, strict=True):
                    answers.append(pair.infer(image))
                logging.info("image %d of %d done", image + 1, settings.images)
            server_phases = [pair.finish() for pair in pairs]
        finally:
            for pair in pairs:
                pair.stop()
    skip = settings.warm_up_images
    return [
        record(
            Policy.load(contender.policy),
            pair.client_phases,
            phases,
            np.asarray(answers[skip:]),
            contender,
            labels,
            skip,
        )
        for contender, pair, phases, answers in zip(contenders, pairs, server_phases, outputs, strict=True)
    ]


def record(
    policy: Policy,
    client: list[dict[str, Any]],
    server: list[dict[str, Any]],
    outputs: np.ndarray,
    contender: Contender,
    labels: np.ndarray,
    skip: int,
) -> dict[str, Any]:
    """The measurement of one policy: set-up, every image after the first `skip`, and medians with quartiles."""
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
        "network_setting": "loopback",
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
