"""Benchmarks of garbled activations: time per AND gate and oblivious transfer, bytes per ReLU."""

from __future__ import annotations

import statistics

from autoprivacy.bench.timing import REPEATS, Result
from autoprivacy.gc.activation import Activation
from autoprivacy.gc.rates import GarblingTimer
from autoprivacy.ot.kernels import numba_supported
from autoprivacy.selection.garbled_costs import garbled_bytes

# Millions of AND gates or transfers per second and core that are aimed at, by backend.
MILLIONS = {
    "numpy": {"garble": 30.0, "evaluate": 50.0},
    "numba": {"garble": 80.0, "evaluate": 150.0, "transfer": 15.0},
}
NAMES = {"garble": "garble-and-gate", "evaluate": "evaluate-and-gate", "transfer": "oblivious-transfer"}
# Plaintext moduli of the usual sizes, a prime and a power of two, with bytes per ReLU that are aimed at.
MODULI = {"17bit-prime": (114689, 1536.0), "20bit-power-of-two": (1 << 20, 1650.0)}
SHIFT, OUTPUT_MAXIMUM = 8, 255
RELUS = 1 << 16


def rates() -> dict[str, Result]:
    """Nanoseconds per AND gate, of a ReLU's circuit less its outputs, and per transfer, both parties together."""
    results = {}
    for backend, targets in MILLIONS.items():
        if backend == "numba" and not numba_supported():
            continue
        timer = GarblingTimer(backend)
        passes = [timer.times() for _ in range(REPEATS + 1)][1:]
        for operation, name in NAMES.items():
            nanoseconds = statistics.median(times[operation] for times in passes) * 1e9
            target = 1e3 / targets[operation] if operation in targets else None
            results[f"{name}-{backend}"] = Result(nanoseconds, "ns", target)
    return results


def relu_bytes() -> dict[str, Result]:
    """Bytes that both parties send per ReLU, offline and online."""
    results = {}
    for name, (modulus, target) in MODULI.items():
        circuit = Activation(modulus, SHIFT, 0, OUTPUT_MAXIMUM).circuit
        sent = sum(garbled_bytes(circuit, (modulus,), RELUS).values())
        results[f"bytes-per-relu-{name}"] = Result(sent / RELUS, "B", target)
    return results
