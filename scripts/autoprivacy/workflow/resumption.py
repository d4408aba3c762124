"""Where a long step keeps the state that it goes on from after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def resumable(folder: str | Path, inputs: Iterable[str | Path], code: str) -> Iterator[Path]:
    """The state file of a step on these inputs; removed when the step ends well.

    Its name is a digest of the inputs' contents and the code: state that other data or other code left behind is
    never gone on from.

    Args:
        folder: named after the step and its settings.
        inputs: every file that the step reads.
        code: the fingerprint of the step's code.
    """
    digest = hashlib.sha256(code.encode())
    for path in sorted(map(str, inputs)):
        with open(path, "rb") as stream:
            digest.update(f"{path}\0".encode() + hashlib.file_digest(stream, "sha256").digest())
    folder = Path(folder)
    state = folder / f"{digest.hexdigest()[:16]}.pt"
    yield state
    state.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
