"""The time left of a training run: by the size of images, with evaluations, and after the process was stopped."""

import pytest

from autoprivacy.training.pace import Pace


def test_the_time_left_counts_every_size_and_the_evaluations():
    pace = Pace([16, 16, 32], 10, [False, True, True])
    for _ in range(4):
        pace.add(0, 1.0)
    # 6 steps of the first epoch, 10 of the second, 10 of four times the pixels
    assert pace.seconds_left(3) == pytest.approx(6 + 10 + 40)
    pace.add_evaluation(5.0)
    assert pace.seconds_left(3) == pytest.approx(56 + 10)
    pace.add(2, 3.0)
    assert pace.seconds_left(20) == pytest.approx(9 * 3 + 5)
    assert pace.seconds_left(29) == 0


def test_a_stop_of_the_process_changes_nothing():
    pace = Pace([32], 1000, [True])
    for _ in range(20):
        pace.add(0, 0.5)
    left = pace.seconds_left(20)
    assert pace.add(0, 3600.0) == 0.5 and pace.seconds_left(20) == left


def test_a_machine_that_slows_down_is_followed():
    pace = Pace([32], 1000, [True])
    for seconds in [0.5] * 150 + [1.5] * 150:
        assert pace.add(0, seconds) == seconds
    assert pace.seconds_left(299) == pytest.approx(700 * 1.5)
