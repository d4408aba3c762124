"""Measures private inference: one server and one client process per scheme, schemes interleaved image by image, every
output compared with the integer network's; on request also many images in a row while a pool of bundles runs dry."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprivacy.he.parameters.policy import Policy
from autoprivacy.protocol.pair import Pair
from autoprivacy.quantization.outputs import Output, predicted_class
from autoprivacy.timing import quartiles


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
        timeout: seconds of silence that end a session, those in which the others have their turn among them.
        threads: of each party's numerical libraries.
        in_turn: schemes that take turns image by image; as many pairs of parties keep their memory at once.
        throughput: the run of many images; None leaves it out.
        network: the connection.
    """

    images: int
    warm_up_images: int = 1
    timeout: float = 120.0
    threads: int = 1
    in_turn: int = 3
    throughput: Throughput | None = None
    network: NetworkSetting = NetworkSetting("loopback")

    def pair(self, contender: Contender, dataset: Path, report: Path, pool: int = 0) -> Pair:
        """The two programs for a contender; see `Pair`."""
        options = ["--timeout", str(self.timeout), *self.network.options()]
        return Pair(contender.network, contender.policy, dataset, report, pool, self.threads, options)


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
        expected: what a client learns of the integer network's outputs for the measured images, int64 [images, values],
            all activations rounded to the nearest.
        simulated_rms: the root mean square of what simulated decryption errors and random roundings change in an output
            of these images; None where nobody simulated.
    """

    network: Path
    policy: Path
    expected: np.ndarray
    simulated_rms: float | None = None


def measure(
    contenders: Sequence[Contender], dataset: Path, labels: np.ndarray, settings: MeasureSettings
) -> list[dict[str, Any]]:
    """Run the protocol for every contender on the first test images and return one record each.

    Args:
        contenders: measured in turn, image by image, so that a slow moment of the machine meets all of them; at most
            `settings.in_turn` of them, then the next.
        dataset: the prepared data set.
        labels: the measured images' classes.
        settings: see MeasureSettings.
    """
    starts = range(0, len(contenders), settings.in_turn)
    groups = [contenders[start : start + settings.in_turn] for start in starts]
    return [record for group in groups for record in _measure_in_turn(group, dataset, labels, settings)]


def _measure_in_turn(
    contenders: Sequence[Contender], dataset: Path, labels: np.ndarray, settings: MeasureSettings
) -> list[dict[str, Any]]:
    outputs: list[list[list[int]]] = [[] for _ in contenders]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pairs = [
            stack.enter_context(settings.pair(contender, dataset, scratch / f"{index}.json"))
            for index, contender in enumerate(contenders)
        ]
        for image in [0] * settings.warm_up_images + list(range(settings.images)):
            for pair, answers in zip(pairs, outputs, strict=True):
                answers.append(pair.infer(image)[0]["outputs"])
            logging.info("image %d of %d done", image + 1, settings.images)
        servers = [pair.finish() for pair in pairs]
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
    with (
        tempfile.TemporaryDirectory() as scratch,
        settings.pair(contender, dataset, Path(scratch) / "report.json", pool) as pair,
    ):
        start = time.perf_counter()
        answers = pair.infer(*asked)
        seconds = time.perf_counter() - start
        pair.finish()
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
        "seconds_from_pool": quartiles(rows[True]) if rows[True] else None,
        "seconds_pool_dry": quartiles(rows[False]) if rows[False] else None,
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
    """The measurement of one policy: set-up, every image after those of the warm-up, medians with quartiles.

    `exact` promises that outputs equal the integer network's bit for bit: no share bits ignored, error rates of at most
    2^-40. Without it they differ by decryption errors, and by roundings at random where `ignored_share_bits`, the
    most that a layer ignores, is above 0; `rms_difference` measures by how much, over the outputs of all images.
    """
    skip, network = settings.warm_up_images, settings.network
    images, expected = [], contender.expected
    for index in range(len(outputs)):
        offline = _merge(client, server, index + skip, "offline")
        online = _merge(client, server, index + skip, "online")
        compared = _compared(outputs[index], expected[index], policy.output)
        images.append({"image": index, "label": int(labels[index]), **compared, "offline": offline, "online": online})
    set_up = _merge(client, server, None, "set-up")
    return {
        "network": policy.network,
        "scheme": policy.scheme,
        "packing": policy.packing,
        "flooding": {"kind": policy.flooding.kind, "kappa": policy.flooding.kappa},
        "network_setting": network.name,
        "link": {"bits_per_second": network.bits_per_second, "round_trip_seconds": network.round_trip_seconds},
        "exact": not policy.approximate,
        "output": policy.output,
        "ignored_share_bits": max(layer.target.ignored_share_bits for layer in policy.layers),
        "rms_difference": _rms(outputs - expected),
        "simulated_rms_difference": contender.simulated_rms,
        "set_up": set_up,
        "summary": _totals(set_up, images),
        "images": images,
    }


def _compared(outputs: np.ndarray, expected: np.ndarray, output: Output) -> dict[str, Any]:
    """What a client learns of one image beside what the integer network says, both int64 [outputs]."""
    difference = outputs - expected
    return {
        "prediction": int(predicted_class(outputs, output)),
        "expected_prediction": int(predicted_class(expected, output)),
        "differing_outputs": int((difference != 0).sum()),
        "largest_difference": int(np.abs(difference).max()),
        "rms_difference": _rms(difference),
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


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
        "t_pre": quartiles([image["offline"]["client"]["seconds"] for image in images]),
        "t_on": quartiles([image["online"]["client"]["seconds"] for image in images]),
        "t_total": quartiles([sum(image[p]["client"]["seconds"] for p in ("offline", "online")) for image in images]),
        "m_pre": quartiles([traffic(image["offline"]) for image in images]),
        "m_on": quartiles([traffic(image["online"]) for image in images]),
        "cpu_pre": quartiles([cpu(image["offline"]) for image in images]),
        "cpu_on": quartiles([cpu(image["online"]) for image in images]),
    }
