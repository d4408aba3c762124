"""The benchmarks run, report what they measured and say so where the yardstick is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from torch import nn

import bench
from autoprivacy.bench import garbling, homomorphic, inference, lookups, seal_yardstick, timing
from autoprivacy.gc import rates as gc_timing
from autoprivacy.gc.activation import Activation
from autoprivacy.ot.kernels import numba_supported

ROOT = Path(__file__).parents[2]
DARL = inference.darl
NETWORKS = ("7cnet", "resnet32")
# What SEAL would take, for a test that needs no SEAL.
MADE_UP = {"encrypt": 3.0, "encrypt_public": 5.0, "decrypt": 7.0, "transform": 0.25, "inverse": 0.5, "product": 2.0}


def small_network(classes: int) -> nn.Module:
    """Two linear layers for images [N, 3, 32, 32]."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, classes))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of everything, timed call by call."""
    monkeypatch.setattr(timing, "SHORTEST_SECONDS", 0.0)
    monkeypatch.setattr(homomorphic, "TRANSFORM_DEGREES", (1024,))
    monkeypatch.setattr(homomorphic, "OUTPUTS", 2)
    monkeypatch.setattr(homomorphic, "SETS", ((4096, 3, 26),))
    monkeypatch.setattr(inference, "seven_cnet", small_network)
    monkeypatch.setattr(inference, "resnet32", small_network)
    monkeypatch.setattr(gc_timing, "TRANSFERS", 1 << 10)
    monkeypatch.setattr(gc_timing, "INSTANCES", 64)
    monkeypatch.setattr(inference, "DEGREES", (4096,))
    monkeypatch.setattr(inference, "PROFILE_REPEATS", 1)
    monkeypatch.setattr(inference, "REPEATS", 1)


def use_yardstick(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    for module in (homomorphic, inference):
        monkeypatch.setattr(module, "seconds", lambda degree, bits: times)
    monkeypatch.setattr(bench, "is_installed", lambda: bool(times))


def test_without_the_yardstick_the_column_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_yardstick(monkeypatch, {})
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    bench.main()
    results = json.loads((tmp_path / "bench.json").read_text())
    names = {"transform-n1024-27bit", "inverse-n1024-60bit", "multiply-accumulate-27bit", "multiply-accumulate-60bit"}
    names |= {f"{name}-n4096-3x26bit" for name in ("encrypt", "load", "reply", "decrypt")}
    names |= {f"{network}-{part}" for network in NETWORKS for part in ("offline-linear", "weight-transforms")}
    names |= {f"{name}-numpy" for name in garbling.NAMES.values()}
    assert names <= set(results)
    for result in results.values():
        assert list(result) == ["value", "unit", "target", "yardstick"]
        assert result["value"] >= 0 and result["unit"] in ("us", "ns", "s", "B") and result["yardstick"] is None
    assert results["multiply-accumulate-27bit"]["target"] == results["7cnet-offline-linear"]["target"] == 0.2
    assert "cpu" in json.loads((tmp_path / "provenance.json").read_text())
    printed = capsys.readouterr().out
    assert "pip install -r requirements-bench.txt" in printed
    assert len(re.findall("missing", printed)) == len(results)


def test_the_yardstick_is_for_the_same_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_yardstick(monkeypatch, MADE_UP)
    results = homomorphic.transforms() | homomorphic.products() | homomorphic.ciphertexts()
    assert results["transform-n1024-27bit"].yardstick == 0.25e6
    assert results["inverse-n1024-60bit"].yardstick == 0.5e6
    assert results["multiply-accumulate-27bit"].yardstick == 2.0 / 8192 * 1e9
    assert results["decrypt-n4096-3x26bit"].yardstick == 7.0e6
    assert results["load-n4096-3x26bit"].yardstick is None


def test_a_network_is_measured_against_seals_time_for_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_yardstick(monkeypatch, MADE_UP)
    policies = []
    monkeypatch.setattr(inference, "darl", lambda *arguments: policies.append(DARL(*arguments)) or policies[-1])
    results = inference.seven_cnet_offline()
    expected = 0.0
    for layer in policies[0].layers:
        counts, polynomials = layer.predicted, 2 * len(layer.parameters.primes)
        expected += counts["encrypt"] * (3.0 + polynomials * 0.25) + counts["product"] * 2.0
        expected += counts["reply"] * (5.0 + polynomials * 0.5) + counts["decrypt"] * 7.0
    assert results["7cnet-offline-linear"].yardstick == pytest.approx(expected)
    assert results["7cnet-offline-linear"].value > 0


def test_rates_of_garbling_have_targets_by_backend() -> None:
    results = garbling.rates()
    backends = ["numpy", "numba"] if numba_supported() else ["numpy"]
    assert sorted(results) == sorted(f"{name}-{backend}" for name in garbling.NAMES.values() for backend in backends)
    assert results["garble-and-gate-numpy"].target == pytest.approx(33.3, abs=0.1)  # 30 million a second
    assert results["oblivious-transfer-numpy"].target is None


def test_bytes_per_relu_are_what_the_parties_send() -> None:
    """By hand: 32 bytes an AND gate, k bits for each of 8 outputs, 16 bytes a label, 4 a transfer, k bits back."""
    for name, result in garbling.relu_bytes().items():
        modulus, target = garbling.MODULI[name.removeprefix("bytes-per-relu-")]
        bits = (modulus - 1).bit_length()
        ands = Activation(modulus, garbling.SHIFT, 0, 255).circuit.and_count
        assert result.value == pytest.approx(32 * ands + 8 * bits / 8 + (16 + 4) * bits + bits / 8, rel=1e-3)
        assert result.value <= target == result.target


def test_lookups_have_targets() -> None:
    results = lookups.lookups()
    assert results.keys() == lookups.TARGETS.keys()
    assert all(result.value > 0 and result.target == lookups.TARGETS[name] for name, result in results.items())


def test_the_yardstick_is_optional_and_pinned() -> None:
    lines = [line for line in (ROOT / "requirements-bench.txt").read_text().splitlines() if line[0] != "#"]
    assert len(lines) == 1 and re.fullmatch(r"seal-python==[0-9.]+", lines[0])
    assert "requirements-bench.txt" in seal_yardstick.MISSING
    if not seal_yardstick.is_installed():
        assert seal_yardstick.seconds(1024, (27,)) == {}


def test_time_of_a_call_is_its_threads_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 1.0, 1.3, 2.0, 2.1, 3.0, 3.2])  # the trial, then 0.3, 0.1 and 0.2 seconds
    monkeypatch.setattr(timing.time, "thread_time", lambda: next(clock))
    calls = []
    assert timing.cpu_seconds(lambda: calls.append(1), 3) == pytest.approx(0.2)
    assert len(calls) == 2 + 3
