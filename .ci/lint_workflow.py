"""`snakemake --lint`, with the exceptions of this workflow and the reason for each."""

import subprocess
import sys

EXCEPTIONS = {
    "Specify a conda environment or container for each rule.": (
        "all rules share one environment, .venv, made from the pinned requirements.txt"
    ),
}


def main() -> int:
    """Print every finding that is no exception; 1 if there is any, or if nothing was found at all."""
    command = [sys.executable, "-m", "snakemake", "--lint"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found, wrong, place = set(), 0, ""
    for line in run.stderr.splitlines():
        if line.startswith("Lints for "):
            place = line
        elif line.startswith("    * "):
            title = line.removeprefix("    * ").removesuffix(":")
            found.add(title)
            if title not in EXCEPTIONS:
                wrong += 1
                print(f"{place} {title}")
    if found != set(EXCEPTIONS) and not wrong:
        print(f"snakemake --lint: expected {', '.join(EXCEPTIONS)} and found {found}\n{run.stdout}{run.stderr}")
        return 1
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
