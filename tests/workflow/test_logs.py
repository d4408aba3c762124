"""What scripts report at their edge: a full disk is one line, whoever notices it first."""

import contextlib
import errno
import logging
import sys
from types import SimpleNamespace

import pytest

from autoprivacy.errors import UserError
from autoprivacy.workflow.logs import run_script, system_cause


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            with contextlib.suppress(OSError):
                handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def told(main, log, capsys):
    with pytest.raises(SystemExit) as error:
        run_script(main, SimpleNamespace(log=[str(log)], rule="train"))
    assert error.value.code == 1
    return capsys.readouterr().err


def full(path="results/a.npz"):
    return OSError(errno.ENOSPC, "No space left on device", path)


def test_a_full_disk_is_one_line(tmp_path, capsys):
    def main(snakemake):
        raise full()

    line = "train: results/a.npz: No space left on device; free some space or name another disk\n"
    assert told(main, tmp_path / "a.log", capsys) == line


def test_a_full_disk_behind_a_librarys_own_error(tmp_path, capsys):
    def main(snakemake):
        try:
            raise full()
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904 - as torch does

    assert "No space left on device; free some space" in told(main, tmp_path / "a.log", capsys)


def test_what_torch_says_of_a_full_disk(tmp_path, monkeypatch):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    assert system_cause(error, tmp_path) is None  # this disk has room
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    assert system_cause(error, tmp_path).errno == errno.ENOSPC
    assert system_cause(ValueError("something else"), tmp_path) is None


def test_a_log_on_a_full_disk_is_told_once(capsys):
    def main(snakemake):
        logging.info("first")
        logging.info("second")
        raise UserError("a mistake")

    error = told(main, "/dev/full", capsys)
    assert error.count("cannot be written: No space left on device") == 1 and "Traceback" not in error
    assert "train: a mistake" in error


def test_other_errors_leave_their_traceback_in_the_log(tmp_path, capsys):
    def main(snakemake):
        raise ZeroDivisionError("here")

    error = told(main, tmp_path / "a.log", capsys)
    assert "Traceback" not in error and "ZeroDivisionError: here" in (tmp_path / "a.log").read_text()
    assert sys.exc_info() == (None, None, None)
