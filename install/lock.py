"""Write a lock file: every package that requirements.txt installs, with the version and the SHA-256 hash of its file.

    python install/lock.py requirements-lock.txt         what pip finds as it is configured: with torch for CPUs
    python install/lock.py requirements-lock-cuda.txt    with torch as the package index serves it

Run it by Python 3.11 on Linux x86-64 with pip 24 or later, whose dry run resolves without downloading; nothing is
installed. The hashes are those of the files that pip would install on such a machine. What the two packages that are
built from source need for building is not locked: pip does not check hashes there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HEADER = """\
# Every file that requirements.txt installs on Linux x86-64 under CPython 3.11, by its hash. Made by install/lock.py:
# edit requirements.txt and run that again. `make install` installs from here.
"""


def report() -> dict[str, Any]:
    """What pip would install into an empty environment, as its installation report says."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    run = subprocess.run([*command, "-r", str(ROOT / "requirements.txt")], check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def entry(package: dict[str, Any]) -> str:
    """The line of one package; the local part of a version (torch's +cpu) stands in the hash, not in the version."""
    version = package["metadata"]["version"].partition("+")[0]
    digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{package['metadata']['name']}=={version} --hash=sha256:{digest}\n"


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python install/lock.py FILE")
    lines = sorted(map(entry, report()["install"]), key=str.lower)
    Path(sys.argv[1]).write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
