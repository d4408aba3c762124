"""Where a long step keeps the state that it goes on from after a kill, and how that is written and read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from autoprivacy.storage import atomic_write, digest


@contextmanager
def resumable(snakemake: Any) -> Iterator[Path]:
    """The state file of a job, which no other job, input, param or code shares; removed when the job ends well.

    The file is <folder of the study>/state/<rule-wildcards>/<digest>.pt, outside the outputs that Snakefile's rules
    declare, since Snakemake deletes those of a job that failed. The digest is that of the job's params, the fingerprint
    of its code among them, and of the contents of its inputs. A step may keep further files beside it whose names
    begin with the digest.

    Args:
        snakemake: the job as a script gets it; its log is <folder of the study>/logs/<rule-wildcards>.log.
    """
    log = Path(snakemake.log[0])
    folder = log.parents[1] / "state" / log.stem
    content = json.dumps(dict(snakemake.params.items()), sort_keys=True).encode()
    content += "".join(f"\0{path}\0{digest(path)}" for path in sorted(map(str, snakemake.input))).encode()
    state = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.pt"
    yield state
    for path in folder.glob(f"{state.stem}*"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def save_state(path: Path | None, state: Any) -> None:
    """Write tensors and plain values; a kill at any moment leaves the old file or the new one. None: nowhere."""
    if path is not None:
        with atomic_write(path) as stream:
            torch.save(state, stream)


def load_state(path: Path | None, device: torch.device | str = "cpu") -> Any:
    """What `save_state` wrote, on the device; None where there is no file, or a damaged one, which is reported."""
    if path is None or not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch, zipfile and pickle each raise their own kinds on damaged files
        logging.warning("%s: cannot be read (%s); starting afresh", path, str(error).partition("\n")[0])
        return None
