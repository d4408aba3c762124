"""Make a study from any working directory: the files are checked, then Snakemake runs in the project's folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.workflow.config_origin import Origin

ROOT = Path(__file__).parents[3]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("config", nargs="*", help="config files, laid over config/config.yaml in this order")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="processors to use (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be done")
    parser.add_argument("--target", action="append", default=[], metavar="FILE", help="make this file alone")


def run(options: argparse.Namespace) -> int:
    """Become Snakemake; its exit status is the command's."""
    files = [Path(file).absolute() for file in options.config]
    Origin(files)  # reports a missing or damaged file, with its line
    if not (ROOT / "Snakefile").is_file():
        raise UserError(f"{ROOT}: no Snakefile; the command runs in a checkout of the project")
    command = [sys.executable, "-m", "snakemake", "--cores", str(options.cores)]
    command += ["--configfile", *map(str, files)] if files else []
    command += ["--dry-run"] if options.dry_run else []
    command += ["--", *options.target] if options.target else []
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(sys.executable, command)
