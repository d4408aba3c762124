"""What every program does at its edge: a mistake or a failing system call is one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from autoprivacy.errors import UserError

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended: 128 and the signal's number


def run_program(name: str, program: Callable[[], int]) -> int:
    """The exit status of `program`; what it raises for the user to mend is told on standard error, after `name`."""
    try:
        status = program()
        sys.stdout.flush()
        return status
    except UserError as error:
        reason = str(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        reason = system_error(error)
        _drop_output()
    print(f"{name}: {reason}", file=sys.stderr)
    return 1


def _drop_output() -> None:
    """What standard output still holds may not be writable, and the interpreter would try again at its end."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def system_error(error: OSError) -> str:
    """One line for a system call that failed: what it was about, why, and what to do."""
    what = f"{error.filename}: " if error.filename else ""
    advice = {
        "BrokenPipeError": "whoever read the output has stopped reading it",
        "PermissionError": "change the permissions or name another place",
    }.get(type(error).__name__)
    if advice is None:
        advice = {28: "free some space or name another disk", 30: "name a place on another disk"}.get(
            error.errno or 0, "check the place and try again"
        )
    return f"{what}{error.strerror or error}; {advice}"
