"""What a job took is written beside its log."""

import time

import numpy as np

from autoprivacy.workflow.usage import Usage, usages


def test_wall_time_processor_time_and_memory(tmp_path):
    usage = Usage()
    ballast = np.ones(30_000_000)  # 240 MB
    time.sleep(0.2)
    usage.write(tmp_path / "train-7cnet.log", "train")
    (taken,) = usages(tmp_path)
    assert taken["job"] == "train-7cnet" and taken["rule"] == "train"
    assert taken["wall_seconds"] >= 0.2
    assert taken["processor_seconds"] > 0
    assert taken["peak_memory_bytes"] >= ballast.nbytes


def test_a_folder_without_any(tmp_path):
    assert list(usages(tmp_path)) == []
