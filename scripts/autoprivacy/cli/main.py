"""The commands: each is a module of this package with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Sequence

from autoprivacy.programs import run_program

COMMANDS = {
    "run": "make a study: train, quantise, choose parameters, measure, report",
    "serve": "serve a network privately",
    "infer": "have images of one's own classified by a server, which sees none of them",
    "select": "choose a network's encryption parameters by rule",
    "measure": "measure private inference under a policy over a link: bytes, seconds, memory",
    "profile": "time this machine's cryptographic operations, for select",
    "inspect": "show a policy or an integer network in a table",
    "doctor": "check what this machine and this installation have",
}


def parser() -> argparse.ArgumentParser:
    """Of the command's name; what comes after it is the command's own."""
    listed = "\n".join(f"  {name:<9} {words}" for name, words in COMMANDS.items())
    result = argparse.ArgumentParser(
        prog="python -m autoprivacy",
        description="Private neural-network inference whose cryptographic parameters choose themselves.",
        epilog=f"commands:\n{listed}\n\n`python -m autoprivacy COMMAND --help` says more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    result.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command: 0, or 1 with one line on standard error."""
    given = parser().parse_args(arguments)
    if given.command == "serve":
        from autoprivacy.protocol.server import main as serve

        return serve(given.arguments)
    module = importlib.import_module(f"autoprivacy.cli.{given.command}")
    own = argparse.ArgumentParser(prog=f"python -m autoprivacy {given.command}", description=COMMANDS[given.command])
    module.add_arguments(own)
    options = own.parse_args(given.arguments)
    logging.basicConfig(level=logging.INFO, format=f"{given.command}: %(message)s")
    return run_program(given.command, lambda: module.run(options))
