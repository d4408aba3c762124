"""Where parties meet: addresses, connecting, and a service that gives every client a thread of its own."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from autoprivacy.errors import UserError
from autoprivacy.link import Link
from autoprivacy.protocol.channel import FAREWELL_SECONDS, Bounds, Channel
from autoprivacy.protocol.messages import failure_frame

# What a server takes before its session knows better: nothing but why the client goes away.
STRANGER = Bounds({})
# How long no connection is accepted after the system refused one (too many open files).
RETRY_SECONDS = 0.1


@dataclass(frozen=True)
class ServiceSettings:
    """How a server treats its clients.

    Attributes:
        clients: served at a time; further ones are refused.
        pool: bundles that one client may hold.
        timeout: seconds of silence that end a session.
        link: what the connections are to behave like.
    """

    clients: int = 8
    pool: int = 16
    timeout: float = 60.0
    link: Link | None = None

    def __post_init__(self) -> None:
        if self.clients < 1 or self.pool < 1 or not self.timeout > 0:
            raise UserError(
                f"service: {self.clients} clients, a pool of {self.pool}, a time-out of {self.timeout:g} s; expected "
                f"at least 1 client, a pool of at least 1, a time-out above 0"
            )


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`; UserError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f'address "{text}": expected host:port with a port up to 65535')
    return host, int(port)


def connect(address: str, timeout: float, link: Link | None = None) -> Channel:
    """Connect to a server; UserError when it cannot be reached, or for a time-out that is not above 0."""
    if not timeout > 0:
        raise UserError(f"time-out {timeout:g} s; expected seconds above 0")
    try:
        return Channel(socket.create_connection(parse_address(address), timeout=timeout), timeout, link)
    except OSError as error:
        raise UserError(f"{address}: no server answers ({error}); start it first") from None


def listen(address: str) -> socket.socket:
    """A listening socket; port 0 lets the system choose."""
    try:
        return socket.create_server(parse_address(address))
    except OSError as error:
        raise UserError(f"{address}: cannot listen there ({error}); choose another port") from None


def accept(listener: socket.socket, settings: ServiceSettings) -> Channel:
    """Wait for one client."""
    connection, _ = listener.accept()
    return Channel(connection, settings.timeout, settings.link, STRANGER)


def serve_clients(listener: socket.socket, settings: ServiceSettings, session: Callable[[Channel], object]) -> None:
    """Serve every client in a thread of its own until the listener is closed.

    Args:
        listener: as `listen` gives it.
        settings: a client beyond `clients` is told so and sent away, so that silent ones cannot make it wait.
        session: serves one client and lets no exception out.
    """
    slots = threading.BoundedSemaphore(settings.clients)

    def serve_one(connection: socket.socket) -> None:
        try:
            session(Channel(connection, settings.timeout, settings.link, STRANGER))
        except OSError as error:  # the client went away before the session began
            logging.warning("session ended: %s", error)
        finally:
            slots.release()

    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if listener.fileno() < 0:
                return
            logging.warning("no connection accepted: %s", error)
            time.sleep(RETRY_SECONDS)
            continue
        if slots.acquire(blocking=False):
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()
        else:
            refuse(connection, f"the server has its {settings.clients} clients already; try again later")


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


def link_of(options: argparse.Namespace) -> Link | None:
    """The link that the options describe; None without a throughput; UserError for one that makes no sense."""
    if options.bits_per_second is None:
        if options.round_trip_seconds:
            raise UserError("--round-trip-seconds without --bits-per-second; give both")
        return None
    return Link(options.bits_per_second, options.round_trip_seconds)
