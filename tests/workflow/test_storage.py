"""Result files: round trips, nothing half-written, clear errors for damaged ones."""

import numpy as np
import pytest
from support.protocol_sessions import NETWORK

from autoprivacy.errors import UserError
from autoprivacy.storage import atomic_write, read_arrays, read_json, read_rows, write_arrays, write_json, write_rows


def test_round_trips(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"x": [1, 2.5, None]}
    array = np.arange(12, dtype=np.int8).reshape(3, 4)
    write_arrays(tmp_path / "a.npz", {"array": array}, header={"name": "x"})
    arrays, header = read_arrays(tmp_path / "a.npz")
    assert header == {"name": "x"} and list(arrays) == ["array"]
    assert arrays["array"].dtype == np.int8 and np.array_equal(arrays["array"], array)
    write_rows(tmp_path / "a.csv", [{"a": 1, "b": "x, y"}, {"a": 2, "b": ""}])
    assert read_rows(tmp_path / "a.csv") == [{"a": "1", "b": "x, y"}, {"a": "2", "b": ""}]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(RuntimeError), atomic_write(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert read_json(path) == 1 and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array([{"object": 1}], dtype=object))
    with pytest.raises(UserError, match="not a readable npz"):
        read_arrays(tmp_path / "evil.npz")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="none.npz: no such file"):
        read_arrays(tmp_path / "none.npz")
    write_arrays(tmp_path / "a.npz", {"array": np.arange(1000)})
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="a.npz: not a readable npz"):
        read_arrays(tmp_path / "a.npz")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="a.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="without rows"):
        read_rows(tmp_path / "empty.csv")


@pytest.mark.parametrize("cut", [1, 2, 3, 7])
def test_a_table_that_is_cut_off_is_refused(tmp_path, cut):
    write_rows(tmp_path / "a.csv", [{"a": 10, "b": 20}, {"a": 30, "b": 40}])
    whole = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "a.csv").write_bytes(whole[:-cut])
    with pytest.raises(UserError, match="a.csv: cut off or damaged"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe" + whole)
    with pytest.raises(UserError, match="a.csv: not text"):
        read_rows(tmp_path / "a.csv")


def test_rows_with_different_columns_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_rows(tmp_path / "a.csv", [{"a": 1}, {"b": 1}])


def test_private_arrays_are_the_owners_to_read_alone(tmp_path):
    write_arrays(tmp_path / "public.npz", {"a": np.arange(3)})
    write_arrays(tmp_path / "private.npz", {"a": np.arange(3)}, private=True)
    NETWORK.save(tmp_path / "network.npz")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"public.npz": 0o644, "private.npz": 0o600, "network.npz": 0o600}
