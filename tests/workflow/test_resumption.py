"""State files: kept after a failure, gone after success, another one for other inputs, params or code."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoprivacy.workflow.resumption import load_state, resumable, save_state


class Job(SimpleNamespace):
    """What a script gets of a job of the rule `train`: its log, inputs and params."""

    def __init__(self, folder, network="small", **params):
        params = {"library": "1a2b", "settings": {"epochs": 3}, **params}
        log, inputs = [str(folder / "logs" / f"train-{network}.log")], [str(folder / "in")]
        super().__init__(log=log, input=inputs, params=params)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").write_text("a")
    return tmp_path


def interrupted(job):
    with pytest.raises(KeyboardInterrupt), resumable(job) as state:
        save_state(state, "half way")
        raise KeyboardInterrupt
    return state


def test_state_outlives_a_failure_and_not_a_success(folder):
    left = interrupted(Job(folder))
    with resumable(Job(folder)) as state:
        assert state == left and load_state(state) == "half way"
        save_state(state.with_name(f"{state.stem}-second.pt"), "more")
    assert state.parent == folder / "state" / "train-small" and not state.parent.exists()


@pytest.mark.parametrize(
    "change", [{"network": "other"}, {"settings": {"epochs": 4}}, {"library": "1a2c"}, {"seed": 1}]
)
def test_another_network_or_param_or_code_has_other_state(folder, change):
    left = interrupted(Job(folder))
    with resumable(Job(folder, **change)) as state:
        assert state != left and load_state(state) is None
    assert left.exists()


def test_other_inputs_have_other_state(folder):
    left = interrupted(Job(folder))
    (folder / "in").write_text("b")
    with resumable(Job(folder)) as state:
        assert state != left and load_state(state) is None
    assert left.exists()


def test_a_step_that_keeps_no_state(folder):
    with resumable(Job(folder)):
        pass
    assert not (folder / "state").exists() or not list((folder / "state").iterdir())


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 half a file", b"\x80\x02no torch file"])
def test_damaged_state_is_reported_and_not_gone_on_from(tmp_path, caplog, damage):
    path = tmp_path / "a.pt"
    save_state(path, {"weights": torch.ones(3), "step": 4})
    assert load_state(path)["step"] == 4
    path.write_bytes(damage)
    assert load_state(path) is None
    assert "a.pt: cannot be read" in caplog.text and "starting afresh" in caplog.text


def test_nowhere_to_keep_state():
    save_state(None, 1)
    assert load_state(None) is None and load_state(Path("no such file")) is None
