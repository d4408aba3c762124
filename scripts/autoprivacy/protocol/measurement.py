"""Measures private inference: one server and one client process per scheme, schemes interleaved image by image, every
output compared with the integer network's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
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
    """A server and a client process of one scheme, set up and waiting for images."""

    def __init__(self, network: Path, policy: Path, dataset: Path, report: Path, settings: MeasureSettings) -> None:
        library = str(Path(__file__).parents[2])
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(settings.threads)), "PYTHONPATH": library}
        self.report = report
        timeout = ["--timeout", str(settings.timeout)]

        def start(program: str, *options: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", f"autoprivacy.protocol.{program}", *options, *timeout]
            return subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
            )

        self._server = start(
            "server", "--network", str(network), "--policy", str(policy), "--report", str(report)
        )
        address = self._line(self._server)
        self._client = start("client", "--connect", address, "--dataset", str(dataset), "--policy", str(policy))
        self.client_phases: list[dict[str, Any]] = json.loads(self._line(self._client))["phases"]

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise UserError(f"{' '.join(process.args[2:4])} stopped with status {process.wait()}; see its message above")  # type: ignore[index]
        return line.strip()

    def infer(self, image: int) -> list[int]:
        """One private inference, offline and online; the network's integer outputs."""
        assert self._client.stdin is not None
        self._client.stdin.write(f"{image}\n")
        self._client.stdin.flush()
        answer = json.loads(self._line(self._client))
        self.client_phases += answer["phases"]
        return answer["outputs"]

    def finish(self) -> list[dict[str, Any]]:
        """End both processes and return what the server recorded."""
        assert self._client.stdin is not None
        self._client.stdin.close()
        if self._client.wait() or self._server.wait():
            raise UserError("a party failed at the end of the session; see its message above")
        return json.loads(self.report.read_text())["phases"]

    def kill(self) -> None:
        """Stop both processes at once."""
        for process in (self._client, self._server):
            process.kill()


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    lower, median, upper = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "lower_quartile": float(lower), "upper_quartile": float(upper)}


def _merge(client: list[dict[str, Any]], server: list[dict[str, Any]], bundle: int, phase: str) -> dict[str, Any]:
    def of(phases: list[dict[str, Any]]) -> dict[str, Any]:
        return next(p for p in phases if p["phase"] == phase and p["bundle"] == bundle)

    return {"client": of(client), "server": of(server)}


def measure_schemes(
    network: Path,
    policies: dict[str, Path],
    dataset: Path,
    expected: np.ndarray,
    labels: np.ndarray,
    scratch: Path,
    settings: MeasureSettings,
) -> dict[str, dict[str, Any]]:
    """Run the protocol for every policy on the first test images and return one record per policy.

    Args:
        expected: the integer network's outputs modulo each policy's p, int64 [policies, images, classes].
        labels: the images' classes.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, Pair] = {}
    outputs: dict[str, list[list[int]]] = {key: [] for key in policies}
    try:
        for key, policy in policies.items():
            pairs[key] = Pair(network, policy, dataset, scratch / f"{key}.json", settings)
        for image in [0] * settings.warm_up_images + list(range(settings.images)):
            for key, pair in pairs.items():
                outputs[key].append(pair.infer(image))
                logging.info("%s: image %d done", key, image)
        server_phases = {key: pair.finish() for key, pair in pairs.items()}
    except BaseException:
        for pair in pairs.values():
            pair.kill()
        raise
    return {
        key: record(
            Policy.load(policies[key]),
            pairs[key].client_phases,
            server_phases[key],
            np.asarray(outputs[key][settings.warm_up_images :]),
            expected[index],
            labels,
            settings.warm_up_images,
        )
        for index, key in enumerate(policies)
    }


def record(
    policy: Policy,
    client: list[dict[str, Any]],
    server: list[dict[str, Any]],
    outputs: np.ndarray,
    expected: np.ndarray,
    labels: np.ndarray,
    skip: int,
) -> dict[str, Any]:
    """The measurement of one policy: set-up, every image, and medians with quartiles."""
    images = []
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
    set_up = _merge(client, server, None, "set-up")  # type: ignore[arg-type]
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
