"""Check what this machine and this installation have, and say what to do about what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoprivacy.backend import default_backend
from autoprivacy.cli.tables import table
from autoprivacy.compiled import cache_place
from autoprivacy.errors import UserError

ROOT = Path(__file__).parents[3]
GIGABYTE = 1 << 30
WANTED_DISK, WANTED_MEMORY = 5, 4  # GB, of the default study
Finding = tuple[str, str, str]  # state, what was found, what to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command: none."""


def run(options: argparse.Namespace) -> int:
    """Print every check; 1 where one failed."""
    findings = {name: _tried(check) for name, check in CHECKS.items()}
    print(table(["check", "state", "found", "what to do"], [[name, *found] for name, found in findings.items()]))
    return int(any(state == "failed" for state, _, _ in findings.values()))


def _tried(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except UserError as error:
        return "failed", str(error), ""
    except Exception as error:  # a broken installation may raise anything
        return "failed", f"{type(error).__name__}: {error}", "install requirements.txt again"


def _python() -> Finding:
    right = sys.version_info[:2] == (3, 11)
    return ("ok" if right else "failed"), platform.python_version(), "" if right else "use Python 3.11"


def _packages() -> Finding:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and line[0] != "#")
    wrong = []
    for name, version in pins.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            wrong.append(f"{name} {found}, pinned {version}")
    if wrong:
        return "warning", "; ".join(wrong[:4]), "pip install -r requirements.txt"
    return "ok", f"{len(pins)} as pinned", ""


def _compiler() -> Finding:
    found = shutil.which("c++")
    return ("ok", found, "") if found else ("warning", "no c++", "only installing needs it: install g++ or clang")


def _aes() -> Finding:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if " aes" in flags:
        return "ok", "AES instructions", ""
    return "warning", "no AES instructions found", "garbling is slow; AUTOPRIVACY_BACKEND=numpy where it fails"


def _seal() -> Finding:
    from Pyfhel import Pyfhel

    he = Pyfhel()
    he.contextGen(scheme="bfv", n=1024, t=65537, sec=128)
    he.keyGen()
    if int(he.decryptInt(he.encryptInt(np.array([3], np.int64)))[0]) != 3:
        return "failed", "a decryption is wrong", "install Pyfhel again: pip install --force-reinstall Pyfhel"
    return "ok", f"Pyfhel {importlib.metadata.version('Pyfhel')} encrypts and decrypts", ""


def _backend() -> Finding:
    return "ok", default_backend(), ""


def _kernels() -> Finding:
    place = cache_place()
    if place is not None:
        return "ok", f"kept in {place}", ""
    return "warning", "no place to keep it", "name a folder in NUMBA_CACHE_DIR, or it is compiled every time"


def _results() -> Finding:
    place = ROOT / "results"
    if _writable(place if place.exists() else ROOT):
        return "ok", str(place), ""
    return "warning", f"{place} cannot be written", "studies need it; serve and infer do not"


def _writable(place: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free / GIGABYTE
    enough = free >= WANTED_DISK
    return ("ok" if enough else "warning"), f"{free:.1f} GB free", "" if enough else f"studies take {WANTED_DISK} GB"


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    enough = total >= WANTED_MEMORY
    return ("ok" if enough else "warning"), f"{total:.1f} GB", "" if enough else f"studies take {WANTED_MEMORY} GB"


def _cores() -> Finding:
    return "ok", f"{len(os.sched_getaffinity(0))} processors", ""


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": _python,
    "packages": _packages,
    "C++ compiler": _compiler,
    "AES": _aes,
    "SEAL": _seal,
    "backend": _backend,
    "compiled code": _kernels,
    "results folder": _results,
    "disk": _disk,
    "memory": _memory,
    "processors": _cores,
}
