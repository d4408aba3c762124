"""Time this machine's homomorphic operations, garbling and lookups, and write what `select` takes."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

from autoprivacy.errors import UserError
from autoprivacy.gc.rates import garbling_times
from autoprivacy.he.profiling.profile import profile
from autoprivacy.lookup.rates import lookup_times
from autoprivacy.timing import quartiles

DEGREES = (1024, 2048, 4096, 8192)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("--output", default="profile.json", help="file to write (%(default)s)")
    parser.add_argument("--degrees", type=int, nargs="+", default=list(DEGREES), metavar="N", help="%(default)s")
    parser.add_argument("--maximum-primes", type=int, default=4, metavar="K", help="of q (%(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="timings of each operation (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Measure and write."""
    if options.repeats < 3 or options.maximum_primes < 1:
        raise UserError("--repeats and --maximum-primes: expected at least 3 and 1")
    logging.info("timing; nothing else should run meanwhile")
    passes = {**garbling_times(options.repeats), **lookup_times(options.repeats)}
    garbling = {name: quartiles(times) for name, times in passes.items()}
    measured = profile(options.degrees, range(1, options.maximum_primes + 1), options.repeats)
    replace(measured, garbling=garbling).save(options.output)
    print(options.output)
    return 0
