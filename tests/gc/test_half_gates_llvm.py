"""Garbling as compiled for processors with narrower vectors than this one may have: the same bits."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoprivacy.gc.activation import Activation
from autoprivacy.gc.garbling import CHUNK, evaluate, garble
from autoprivacy.ot import kernels
from autoprivacy.ot.labels import random_delta
from autoprivacy.randomness.generator import SecureRandom

# What numba is told of a processor, and the registers that AES instructions then work on.
PROCESSORS = {"+ssse3,+sse4.1,+aes": "xmm", "+avx2,+aes,+vaes": "ymm"}
AES = re.compile(r"aesenc\s.*%([xyz]mm)")
COUNT = CHUNK + 131  # whole vectors, and a rest of every width


def results(backend: str) -> str:
    """A digest of the tables, masks and outputs of an activation with inverted gates and two moduli."""
    circuit, moduli, random = Activation(114689, 6, -128, 127).circuit, (114689, 1 << 20), SecureRandom(bytes(32))
    evaluator = random.words((circuit.evaluator_bits, COUNT, 2))
    garbled = garble(circuit, COUNT, random_delta(random), evaluator, moduli, random, backend)
    outputs = evaluate(circuit, COUNT, garbled.tables, garbled.garbler_zero, evaluator, moduli, backend)
    return hashlib.sha256(
        b"".join(map(np.ndarray.tobytes, [*garbled.tables, garbled.output_masks, outputs]))
    ).hexdigest()


def supported() -> list[str]:
    """Those of `PROCESSORS` that this one can stand in for."""
    if not kernels.numba_supported():
        return []
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return [names for names in PROCESSORS if all(features.get(name[1:]) for name in names.split(","))]


def registers() -> set[str]:
    """The registers that the compiled evaluation encrypts in."""
    from autoprivacy.gc import garbling_numba

    return {name for code in garbling_numba._evaluate_gates.inspect_asm().values() for name in AES.findall(code)}


@pytest.mark.parametrize("features", supported())
def test_all_processors_give_the_bits_of_numpy(features: str, tmp_path: Path) -> None:
    settings = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    digest, *used = run.stdout.split()
    assert digest == results("numpy")
    assert sorted(used) == sorted({"xmm", PROCESSORS[features]})  # the last instances go one by one


if __name__ == "__main__":
    print(results("numba"), *registers())
