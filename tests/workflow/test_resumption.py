"""State files: kept after a failure, gone after success, another one for other inputs."""

import pytest

from autoprivacy.workflow.resumption import resumable


def interrupted(folder, inputs, code="v1"):
    with pytest.raises(KeyboardInterrupt), resumable(folder, inputs, code) as state:
        state.parent.mkdir(exist_ok=True)
        state.write_text("half way")
        raise KeyboardInterrupt
    return state


def test_state_outlives_a_failure_and_not_a_success(tmp_path):
    (tmp_path / "in").write_text("a")
    folder = tmp_path / "state"
    left = interrupted(folder, [tmp_path / "in"])
    with resumable(folder, [tmp_path / "in"], "v1") as state:
        assert state == left and state.read_text() == "half way"
    assert not folder.exists()


def test_other_inputs_have_other_state(tmp_path):
    (tmp_path / "in").write_text("a")
    left = interrupted(tmp_path / "state", [tmp_path / "in"])
    (tmp_path / "in").write_text("b")
    with resumable(tmp_path / "state", [tmp_path / "in"], "v1") as state:
        assert state != left and not state.exists()
    assert left.exists()


def test_a_step_that_keeps_no_state(tmp_path):
    (tmp_path / "in").write_text("a")
    with resumable(tmp_path / "state", [tmp_path / "in"], "v1"):
        pass
    assert not (tmp_path / "state").exists()


def test_other_code_has_other_state(tmp_path):
    (tmp_path / "in").write_text("a")
    assert interrupted(tmp_path / "state", [tmp_path / "in"]) != interrupted(
        tmp_path / "state", [tmp_path / "in"], "v2"
    )
