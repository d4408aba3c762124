"""Result files: JSON for numbers and npz for arrays, written to a temporary file and renamed, read without pickles."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from autoprivacy.errors import UserError


@contextmanager
def atomic_write(path: str | Path, private: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place only when the block ends without an error.

    A `private` file is the owner's to read alone; others are everybody's.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(temporary, 0o600 if private else 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused (ValueError), since JSON has neither."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic_write(path) as stream:
        stream.write(text.encode())


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: str | Path) -> Any:
    """Read a JSON file; UserError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); make it again") from None


def write_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], header: Any = None, compress: bool = True, private: bool = False
) -> None:
    """Write arrays, and a JSON-able `header` under the key `header`, as one npz; `private`: see `atomic_write`."""
    content = {name: np.asarray(array) for name, array in arrays.items()}
    if "header" in content:
        raise ValueError("'header' names the JSON header; choose another array name")
    if header is not None:
        content["header"] = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    with atomic_write(path, private) as stream:
        (np.savez_compressed if compress else np.savez)(stream, **content)  # type: ignore[arg-type]


def read_arrays(path: str | Path, prefix: str = "") -> tuple[dict[str, np.ndarray], Any]:
    """Read what `write_arrays` wrote: the arrays whose names begin so, and the header (None without one); UserError
    when damaged.
    """
    try:
        # opened here, since numpy leaves a file open that turns out damaged
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):  # which numpy would take for a pickle, and propose to load unsafely
                raise UserError(f"{path}: not a readable npz archive (no zip file); fetch or make it again")
            with np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files if name.startswith((prefix, "header"))}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds on damaged archives
        raise UserError(f"{path}: not a readable npz archive ({error}); fetch or make it again") from None
    header = arrays.pop("header", None)
    return arrays, None if header is None else json.loads(header.tobytes())


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as CSV with a header; ValueError when there are none or their keys differ."""
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"{path}: a table needs at least one row, and the same columns in each")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV table; UserError when it is missing, empty or cut off."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError:
        raise UserError(f"{path}: not text; make it again") from None
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if not rows:
        raise UserError(f"{path}: a table without rows; make it again")
    if not text.endswith("\n") or any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path}: cut off or damaged: a row has not one value per column; make it again")
    return rows
