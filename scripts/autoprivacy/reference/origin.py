"""Which commit and which machine a study's results are of."""

from __future__ import annotations

from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.storage import read_json


def origin(results: Path) -> str:
    """Commit, processor and date of a study's profile, in words."""
    path = results / "profile.json"
    if not path.is_file():
        return "of unknown origin (no profile.json)"
    try:
        made = read_json(path)["provenance"]
        return f"commit {made['commit'][:12]}, {made['cpu']}, {made['date'][:10]}"
    except (KeyError, TypeError):
        raise UserError(f"{path}: commit, cpu or date of its provenance is missing; make it again") from None
