"""Where parties meet: addresses, connecting, and a service that gives every client a thread of its own."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.protocol.channel import FAREWELL_SECONDS, STRANGER, Channel, Connection
from autoprivacy.protocol.messages import ProtocolError, failure_frame
from autoprivacy.protocol.tls import ServerIdentity, ServerTrust

# How long no connection is accepted after the system refused one (too many open files).
RETRY_SECONDS = 0.1
# How long a stranger has for the TLS handshake, and then for saying that it is a client.
HANDSHAKE_SECONDS = 5.0

BUNDLES_LIMIT = 1 << 34  # bytes on disk


@dataclass(frozen=True)
class ServiceSettings:
    """How a server treats its clients.

    Attributes:
        clients: served at a time; further ones are refused.
        pool: bytes of memory for the bundles of all clients together; each may have its equal part of them.
        timeout: seconds of silence that end a session.
        link: what the connections are to behave like.
        images_per_client: that one client is answered while the server runs; None: any number.
        tls: the server's certificate; None leaves connections in the clear.
    """

    clients: int = 8
    pool: int = 1 << 28
    timeout: float = 60.0
    link: Link | None = None
    images_per_client: int | None = None
    tls: ServerIdentity | None = None

    def __post_init__(self) -> None:
        if self.clients < 1 or self.pool < 1 or not self.timeout > 0:
            raise UserError(
                f"service: {self.clients} clients, a pool of {self.pool} bytes, a time-out of {self.timeout:g} s; "
                f"expected at least 1 client, a pool of at least 1 byte, a time-out above 0"
            )
        if self.images_per_client is not None and self.images_per_client < 1:
            raise UserError(f"--images-per-client {self.images_per_client}: expected at least 1")

    def bundles(self, size: int, ready: int = 0) -> int:
        """How many bundles of so many bytes one client may hold, of which one, at hand, takes `ready` in addition.

        Raises:
            UserError: it is none.
        """
        count = (self.pool // self.clients - ready) // size
        if count < 1:
            raise UserError(
                f"--pool {self.pool} bytes for {self.clients} clients: a bundle takes {size + ready} bytes; "
                f"expected at least {(size + ready) * self.clients}, or fewer clients"
            )
        return count


class Quota:
    """How many images each client may have answered; clients are told apart by `Channel.peer`.

    Args:
        images: that a client may have; None: any number.
    """

    def __init__(self, images: int | None = None) -> None:
        self._images = images
        self._answered: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, peer: str) -> None:
        """Count one image; ProtocolError, counting nothing, where the client has had all of its."""
        if self._images is None:
            return
        with self._lock:
            if self._answered[peer] >= self._images:
                raise ProtocolError(f"all {self._images} images that this server answers a client have been asked for")
            self._answered[peer] += 1


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`, an IPv6 address in brackets; UserError otherwise."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = port.isascii() and port.isdecimal() and int(port) <= 65535
    if not colon or not host or not number or (":" in host and not bracketed):
        raise UserError(
            f'address "{text}": expected host:port with a port up to 65535, an IPv6 address in brackets: [::1]:9000'
        )
    return (host[1:-1] if bracketed else host), int(port)


def address_text(host: str, port: int) -> str:
    """What `parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(address: str, timeout: float, link: Link | None = None, trust: ServerTrust | None = None) -> Channel:
    """Connect to a server.

    Args:
        address: host:port.
        timeout: seconds of silence after which the server counts as gone.
        link: what the connection is to behave like.
        trust: what is asked of the server's certificate; None connects in the clear.

    Raises:
        UserError: no server can be reached there, it is another, or the time-out is not above 0.
    """
    if not timeout > 0:
        raise UserError(f"time-out {timeout:g} s; expected seconds above 0")
    host, port = parse_address(address)
    try:
        connection: Connection = socket.create_connection((host, port), timeout=timeout)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{address}: no server answers ({error}); start it first") from None
    if trust is not None:
        try:
            connection = trust.connect(connection, host, timeout)  # type: ignore[arg-type]
        except ProtocolError as error:
            raise ProtocolError(f"{address}: {error}") from None
    return Channel(connection, timeout, link)


def listen(address: str) -> socket.socket:
    """A listening socket; port 0 lets the system choose."""
    try:
        family, _, _, _, place = socket.getaddrinfo(*parse_address(address), type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except (OSError, UnicodeError) as error:  # a host name may be no text that DNS has
        raise UserError(f"{address}: cannot listen there ({error}); choose another port or host") from None


def is_loopback(host: str) -> bool:
    """Whether a numeric address is this machine's own."""
    return ipaddress.ip_address(host).is_loopback


def accept(listener: socket.socket, settings: ServiceSettings) -> Channel:
    """Wait for one client; ProtocolError where its TLS handshake fails."""
    return _channel(*listener.accept(), settings)


def _channel(connection: socket.socket, address: tuple[str, int], settings: ServiceSettings) -> Channel:
    """A client's channel; it is known by its certificate, or else by the address it comes from."""
    if settings.tls is None:
        return Channel(connection, settings.timeout, settings.link, STRANGER, peer=address[0])
    tls = settings.tls.accept(connection, HANDSHAKE_SECONDS)
    return Channel(tls, settings.timeout, settings.link, STRANGER, peer=tls.peer_fingerprint or address[0])


def serve_clients(listener: socket.socket, settings: ServiceSettings, session: Callable[[Channel], object]) -> None:
    """Serve every client in a thread of its own until the listener is closed.

    Args:
        listener: as `listen` gives it.
        settings: a client beyond `clients` is told so and sent away, so that silent ones cannot make it wait.
        session: serves one client and lets no exception out.
    """
    slots = threading.BoundedSemaphore(settings.clients)

    def serve_one(connection: socket.socket, address: tuple[str, int]) -> None:
        try:
            session(_channel(connection, address, settings))
        except (OSError, ProtocolError) as error:  # the client went away before the session began, or was none
            logging.warning("session ended: %s", error)
        finally:
            slots.release()

    while True:
        try:
            connection, address = listener.accept()
        except OSError as error:
            if listener.fileno() < 0:
                return
            logging.warning("no connection accepted: %s", error)
            time.sleep(RETRY_SECONDS)
            continue
        if slots.acquire(blocking=False):
            threading.Thread(target=serve_one, args=(connection, address), daemon=True).start()
        elif settings.tls is None:
            refuse(connection, f"the server has its {settings.clients} clients already; try again later")
        else:
            connection.close()  # a handshake with everybody who is refused would cost more than it tells


def refuse(connection: socket.socket, reason: str) -> None:
    """Tell a client that has sent nothing yet why it is not served, and close."""
    with contextlib.suppress(OSError), connection:
        connection.settimeout(FAREWELL_SECONDS)
        connection.sendall(failure_frame(reason))


def add_link_options(parser: argparse.ArgumentParser) -> None:
    """The options of both programs that say what the connection is to behave like."""
    group = parser.add_argument_group("shaping", "behave as a slower link would; give both parties the same")
    group.add_argument("--bits-per-second", type=float, help="throughput in each direction")
    group.add_argument("--round-trip-seconds", type=float, default=0.0, help="half of it each way")


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    """The options of both programs that keep bundles on disk between runs."""
    group = parser.add_argument_group("bundles on disk", "kept between runs, encrypted, each used once")
    group.add_argument("--bundles", metavar="DIR", help="this party's folder; without it bundles are in memory alone")
    group.add_argument("--bundles-key", metavar="FILE", help="key of the files, made if missing; default: DIR/key")
    group.add_argument(
        "--bundles-limit", type=int, default=BUNDLES_LIMIT, metavar="BYTES", help="that the files may take on disk"
    )


def link_of(options: argparse.Namespace) -> Link | None:
    """The link that the options describe; None without a throughput; UserError for one that makes no sense."""
    if options.bits_per_second is None:
        if options.round_trip_seconds:
            raise UserError("--round-trip-seconds without --bits-per-second; give both")
        return None
    return Link(options.bits_per_second, options.round_trip_seconds)
