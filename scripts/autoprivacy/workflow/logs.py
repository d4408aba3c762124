"""What every script does around its work: log to file and console, and turn a user's mistake into one line."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.programs import system_error
from autoprivacy.workflow.usage import Usage

DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)  # that explain an error raised in their handling
FULL = 1 << 16  # free bytes below which a failed write is taken for that of a full disk


def run_script(main: Callable[[Any], None], snakemake: Any) -> None:
    """Run a script's `main(snakemake)`; its log goes to the rule's log file and the console.

    A UserError and a failing system call, as of a full disk, end the script with one line; any other error leaves its
    traceback in the log file. What the job took lies beside the log when it is done (`workflow.usage`).
    """
    usage = Usage()
    log = Path(str(snakemake.log[0]))
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter(f"{snakemake.rule}: %(message)s"))
    handlers: list[logging.Handler] = [console]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(log, mode="a"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    except OSError as error:
        print(f"{snakemake.rule}: no log: {system_error(error)}", file=sys.stderr)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.captureWarnings(True)
    try:
        main(snakemake)
        usage.write(log, snakemake.rule)
    except UserError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception as error:
        failed = system_cause(error, log.parent)
        if failed is not None:
            logging.error("%s", system_error(failed))
            sys.exit(1)
        console.setLevel(logging.CRITICAL)
        logging.exception("unexpected error")
        console.setLevel(logging.INFO)
        logging.error("failed; the traceback is in %s", log)
        sys.exit(1)


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: that is told once, and the work goes on."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """One line in place of logging's traceback."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            print(f"the log {self.baseFilename} cannot be written: {system_error(error)}", file=sys.stderr)


def system_cause(error: BaseException, folder: Path) -> OSError | None:
    """The failed system call behind an error; None where there is none.

    Args:
        error: libraries may raise an error of their own while an OSError is handled, or, as torch's writer does, of a
            disk that is full one that does not say so.
        folder: on the disk that is written to.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause is error or cause.errno in DISK_ERRORS):
            return cause
        cause = cause.__cause__ or cause.__context__
    writes = "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
    if writes and shutil.disk_usage(folder).free < FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    return None
