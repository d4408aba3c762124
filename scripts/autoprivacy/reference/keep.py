"""`python -m autoprivacy.reference.keep STUDY`: what the repository keeps of a run, below results/reference/STUDY.

Tables, figures, claims, policies, summaries of measurements and what every job took; no images of a data set, no
networks. `reference.compare` sets other runs beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.programs import run_program
from autoprivacy.reference.compare import REFERENCE, RESULTS
from autoprivacy.reference.comparison import COMPARED
from autoprivacy.storage import read_json, write_json, write_rows
from autoprivacy.workflow.usage import usages

# Files of a study that are kept as they are, as patterns below its folder.
KEPT = (
    *COMPARED,
    "claims.md",
    "profile.json",
    "*.csv",
    "repeated-queries.json",
    "tables/table*.*",
    "tables/ablation.*",
    "figures/*.png",
    "policies/*/*.json",
    "search/*/*.csv",
    "quantization/*.csv",
    "wraps/*.csv",
    "sampling/*.csv",
    "tolerance/*.csv",
)
SUMMARISED = "measurements/**/*.json"
SUMMARY = ("network", "scheme", "packing", "network_setting", "link", "exact", "peak_memory_bytes", "summary")
MAXIMUM_BYTES = 10_000_000  # of a kept run: it lies in the repository


def main(arguments: list[str] | None = None) -> int:
    """Keep a run; 0."""
    parser = argparse.ArgumentParser(prog="python -m autoprivacy.reference.keep", description=__doc__)
    parser.add_argument("study", help="its name: its results lie in results/STUDY")
    name = parser.parse_args(arguments).study
    size = keep(RESULTS / name, REFERENCE / name)
    print(f"{REFERENCE / name}: {size / 1e6:.1f} MB")
    return 0


def keep(study: Path, kept: Path) -> int:
    """Copy what is kept of a study; its bytes.

    Raises:
        UserError: the study is not complete, or there is too much of it.
    """
    missing = [name for name in COMPARED if not (study / name).is_file()]
    if missing:
        raise UserError(f"{study}: no {', '.join(missing)}; run the study to its end")
    files = sorted({path for pattern in KEPT for path in study.glob(pattern)})
    size = sum(path.stat().st_size for path in files)
    if size > MAXIMUM_BYTES:
        raise UserError(f"{study}: {size / 1e6:.1f} MB to keep; allowed {MAXIMUM_BYTES / 1e6:.0f} MB")
    made = kept.with_name(f".{kept.name}")
    shutil.rmtree(made, ignore_errors=True)
    _write(study, made, files)
    shutil.rmtree(kept, ignore_errors=True)
    made.rename(kept)
    return sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())


def _write(study: Path, place: Path, files: list[Path]) -> None:
    for path in files:
        _folder_of(place / path.relative_to(study))
        shutil.copyfile(path, place / path.relative_to(study))
    for path in sorted(study.glob(SUMMARISED)):
        _folder_of(place / path.relative_to(study))
        write_json(place / path.relative_to(study), _summary(read_json(path)))
    taken = list(usages(study / "logs"))
    if taken:
        write_rows(place / "usage.csv", taken)


def _folder_of(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def _summary(measurement: dict[str, Any]) -> dict[str, Any]:
    return {key: measurement[key] for key in SUMMARY if key in measurement}


if __name__ == "__main__":
    sys.exit(run_program("keep", main))
