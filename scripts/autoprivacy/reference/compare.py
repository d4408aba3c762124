"""`python -m autoprivacy.reference.compare`: a study's results beside the reference run's and the paper's.

Tells what must be equal and is not, seconds and bytes of all three, and in the end one line a claim.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoprivacy.cli.tables import table
from autoprivacy.errors import UserError
from autoprivacy.programs import run_program
from autoprivacy.reference.comparison import COMPARED, ClaimBeside, compare, inference_rows, verdicts
from autoprivacy.reference.origin import origin

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
REFERENCE = RESULTS / "reference"
SHOWN = 5  # rows that disagree, of a check


def main(arguments: list[str] | None = None) -> int:
    """0, or with --strict 1 where a check or a verdict disagrees."""
    parser = argparse.ArgumentParser(prog="python -m autoprivacy.reference.compare", description=__doc__)
    parser.add_argument(
        "study", nargs="?", default="paper-short", help="its name, or the folder of its results (%(default)s)"
    )
    parser.add_argument("--reference", type=Path, help="folder of the reference (results/reference/STUDY)")
    parser.add_argument(
        "--all", action="store_true", help=f"every row that disagrees, not the first {SHOWN} of a check"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 where anything disagrees")
    options = parser.parse_args(arguments)
    own = Path(options.study) if "/" in options.study else RESULTS / options.study
    reference = options.reference or REFERENCE / own.name
    _complete(own, f"make it: snakemake -j8 {'' if own.name == 'paper' else f'--configfile config/{own.name}.yaml'}")
    _complete(reference, f"there are references of {', '.join(references()) or 'no study'}")
    return _tell(own, reference, options.all) and int(options.strict)


def references() -> list[str]:
    """The studies that the repository has reference results of, complete."""
    return sorted(path.name for path in REFERENCE.iterdir() if all((path / name).is_file() for name in COMPARED))


def _complete(folder: Path, advice: str) -> None:
    missing = [name for name in COMPARED if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)}; {advice.strip()}")


def _tell(own: Path, reference: Path, everything: bool) -> int:
    """Print all; 1 where something disagrees."""
    print(f"here:      {own}, {origin(own)}\nreference: {reference}, {origin(reference)}\n")
    checks = compare(own, reference)
    for check in checks:
        print(check.line)
        shown = check.outside if everything else check.outside[:SHOWN]
        print("".join(f"  {line}\n" for line in shown), end="")
        if len(shown) < len(check.outside):
            print(f"  and {len(check.outside) - len(shown)} more (--all)")
    header = ["seconds and gigabytes an image", "paper (s)", "reference (s)", "here (s)"]
    print("", table([*header, "paper (GB)", "reference (GB)", "here (GB)"], inference_rows(own, reference)), sep="\n")
    claims = verdicts(own, reference)
    print("", *(claim.line for claim in claims), _total(claims), sep="\n")
    return int(not all(check.agrees for check in checks) or not all(claim.same for claim in claims))


def _total(claims: list[ClaimBeside]) -> str:
    return f"{sum(claim.same for claim in claims)} of {len(claims)} claims have the reference's verdict"


if __name__ == "__main__":
    sys.exit(run_program("compare", main))
