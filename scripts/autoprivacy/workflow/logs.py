"""What every script does around its work: log to file and console, and turn a user's mistake into one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError


def run_script(main: Callable[[Any], None], snakemake: Any) -> None:
    """Run a script's `main(snakemake)`; its log goes to the rule's log file and the console.

    A UserError ends the script with its message alone; any other error leaves its traceback in the log file.
    """
    log = Path(str(snakemake.log[0]))
    log.parent.mkdir(parents=True, exist_ok=True)
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter(f"{snakemake.rule}: %(message)s"))
    file = logging.FileHandler(log, mode="a")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[console, file], force=True)
    logging.captureWarnings(True)
    try:
        main(snakemake)
    except UserError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception:
        console.setLevel(logging.CRITICAL)
        logging.exception("unexpected error")
        console.setLevel(logging.INFO)
        logging.error("failed; the traceback is in %s", log)
        sys.exit(1)
