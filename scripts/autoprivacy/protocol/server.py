"""The server program: private inference for clients with images.

    python -m autoprivacy.protocol.server --network integer.npz --policy policy.json --listen host:port

prints the address it listens on and serves its clients, each in a thread with keys and bundles of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import sys
from functools import partial
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.programs import run_program
from autoprivacy.protocol.endpoints import (
    Quota,
    ServiceSettings,
    accept,
    add_bundle_options,
    add_link_options,
    address_text,
    is_loopback,
    link_of,
    listen,
    serve_clients,
)
from autoprivacy.protocol.kept_bundles import SERVER, BundleFolder, binding
from autoprivacy.protocol.sealed_files import Seal, SealedFolder
from autoprivacy.protocol.server_session import Model, serve
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.tls import ServerIdentity
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
    parser.add_argument(
        "--pool", type=int, default=default.pool, metavar="BYTES", help="memory for prepared bundles, of all clients"
    )
    add_bundle_options(parser)
    parser.add_argument("--images-per-client", type=int, metavar="N", help="answered to one client at most")
    parser.add_argument(
        "--allow-approximate-logits", action="store_true", help="serve an approximate policy with more than the label"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="the server's certificate, PEM; without it: no TLS")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    parser.add_argument("--tls-client-ca", metavar="FILE", help="authorities that clients' certificates must be from")
    add_link_options(parser)
    return parser


def _serve_one(model: Model, listener: socket.socket, settings: ServiceSettings, report: str) -> int:
    """The exit status: 1, and no report, where the session failed."""
    pool = bundles_of_a_client(model, settings)
    session = serve(model, accept(listener, settings), pool, Quota(settings.images_per_client))
    if session is None:
        return 1
    write_json(report, session.ledger.report())
    return 0


def bundles_of_a_client(model: Model, settings: ServiceSettings) -> int:
    """How many bundles one client may hold in the server's memory; UserError where it is none."""
    lengths = model.agreement.lengths
    return settings.bundles(lengths.server_bundle_bytes, lengths.ready_bytes)


def _folder(model: Model, options: argparse.Namespace) -> BundleFolder | None:
    """The server's bundles on disk."""
    if options.bundles is None:
        return None
    seal = Seal(SERVER, binding(model.agreement, model.network))
    return BundleFolder(SealedFolder(options.bundles, options.bundles_key), seal, options.bundles_limit)


def _announce(agreement: Agreement, path: str) -> None:
    try:
        Path(path).write_bytes(agreement.to_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _identity(options: argparse.Namespace) -> ServerIdentity | None:
    if options.tls_cert is None and options.tls_key is None:
        if options.tls_client_ca is not None:
            raise UserError("--tls-client-ca without --tls-cert and --tls-key; give all three")
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise UserError("--tls-cert and --tls-key belong together; give both")
    return ServerIdentity.load(options.tls_cert, options.tls_key, options.tls_client_ca)


def _check_served(policy: Policy, allow_approximate: bool) -> None:
    """Warn of what a client could learn; UserError where it is too much to serve by oversight."""
    if policy.approximate and policy.output != "label" and not allow_approximate:
        raise UserError(
            f"policy {policy.scheme} of {policy.network} is approximate and gives {policy.output}: clients that repeat "
            'queries learn weights (docs/security.md); set its "output" to "label", choose an exact scheme, or allow '
            "it for clients that you trust with the weights: --allow-approximate-logits"
        )
    for warning in policy.warnings:
        logging.warning("%s", warning)


def _settings(options: argparse.Namespace) -> ServiceSettings:
    return ServiceSettings(
        options.clients, options.pool, options.timeout, link_of(options), options.images_per_client, _identity(options)
    )


def _run(options: argparse.Namespace) -> int:
    settings = _settings(options)
    network, policy = IntegerNetwork.load(options.network), Policy.load(options.policy)
    if options.announce:
        _announce(Agreement(network.architecture, policy), options.announce)
        return 0
    _check_served(policy, options.allow_approximate_logits)
    model = Model(network, policy)
    pool, folder = bundles_of_a_client(model, settings), _folder(model, options)
    with listen(options.listen) as listener:
        host, port = listener.getsockname()[:2]
        if settings.tls is not None:
            logging.info("certificate fingerprint %s", settings.tls.fingerprint)
        elif not is_loopback(host):
            logging.warning("listening on %s in the clear: give --tls-cert and --tls-key", host)
        print(address_text(host, port), flush=True)
        if options.report:
            return _serve_one(model, listener, settings, options.report)
        serving = partial(serve, model, pool=pool, quota=Quota(settings.images_per_client), folder=folder)
        with contextlib.suppress(KeyboardInterrupt):  # which is how a server ends
            serve_clients(listener, settings, serving)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the server program."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="server: %(message)s")
    return run_program("server", lambda: _run(options))


if __name__ == "__main__":
    sys.exit(main())
