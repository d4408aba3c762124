"""Freed memory is kept: what numpy frees and takes again causes no page faults."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAULTS = """
import resource
import numpy as np
from autoprivacy.memory import keep_freed_memory
keep_freed_memory()
x = np.ones(1 << 17)
for _ in range(20):
    if _ == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (x + x) + (x - x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_blocks_are_kept() -> None:
    faults = int(subprocess.check_output([sys.executable, "-c", FAULTS], cwd=SCRIPTS))
    assert faults < 256  # the pages of one megabyte; given back, each of 57 blocks would cause as many
