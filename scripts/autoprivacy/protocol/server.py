"""The server program: private inference for clients with images.

    python -m autoprivacy.protocol.server --network integer.npz --policy policy.json --listen host:port

prints the address it listens on and serves its clients, each in a thread with keys and bundles of its own.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from functools import partial
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.protocol.endpoints import ServiceSettings, accept, add_link_options, link_of, listen, serve_clients
from autoprivacy.protocol.server_session import Model, serve
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.storage import write_json


def _parser() -> argparse.ArgumentParser:
    default = ServiceSettings()
    parser = argparse.ArgumentParser(description="Private inference: the server.")
    parser.add_argument("--network", required=True, help="the integer network, npz")
    parser.add_argument("--policy", required=True, help="the policy file")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--announce", metavar="FILE", help="write what clients are told (JSON) to this file, then stop")
    parser.add_argument("--report", help="write where the first session's time went to this file, then stop")
    parser.add_argument("--timeout", type=float, default=default.timeout, help="seconds of silence that end a session")
    parser.add_argument("--clients", type=int, default=default.clients, help="served at a time; others are refused")
    parser.add_argument("--pool", type=int, default=default.pool, help="bundles that a client may hold ready")
    add_link_options(parser)
    return parser


def _serve_one(model: Model, listener: socket.socket, settings: ServiceSettings, report: str) -> int:
    """The exit status: 1, and no report, where the session failed."""
    session = serve(model, accept(listener, settings), settings.pool)
    if session is None:
        return 1
    write_json(report, session.ledger.report())
    return 0


def _announce(agreement: Agreement, path: str) -> None:
    try:
        Path(path).write_bytes(agreement.to_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _run(options: argparse.Namespace) -> int:
    settings = ServiceSettings(options.clients, options.pool, options.timeout, link_of(options))
    network, policy = IntegerNetwork.load(options.network), Policy.load(options.policy)
    if options.announce:
        _announce(Agreement(network.architecture, policy), options.announce)
        return 0
    model = Model(network, policy)
    with listen(options.listen) as listener:
        host, port = listener.getsockname()[:2]
        print(f"{host}:{port}", flush=True)
        if options.report:
            return _serve_one(model, listener, settings, options.report)
        serve_clients(listener, settings, partial(serve, model, pool=settings.pool))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the server program."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="server: %(message)s")
    try:
        return _run(options)
    except UserError as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
