"""TLS 1.3 between client and server by the standard library: who the server is, and on request who the client is.

OpenSSL does not allow one object to be read and written by two threads at once, and a channel does just that. So the
TLS state stands between two memory buffers, only ever touched under a lock, and the socket is read and written outside
the lock. There is no closing handshake: GOODBYE and the lengths of messages say whether a session ended as it should.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import socket
import ssl
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.protocol.messages import ProtocolError, printable

logger = logging.getLogger(__name__)

CIPHERTEXT_BYTES = 1 << 16  # read from the socket at a time
FINGERPRINT_BYTES = 32


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a DER certificate, hexadecimal: what a client can insist on."""
    return hashlib.sha256(certificate).hexdigest()


@dataclass(frozen=True)
class ServerIdentity:
    """A server's certificate, and whose clients it serves.

    Attributes:
        context: the standard library's.
        fingerprint: of the certificate.
    """

    context: ssl.SSLContext
    fingerprint: str

    @classmethod
    def load(cls, certificate: str, key: str, client_ca: str | None = None) -> ServerIdentity:
        """From PEM files.

        Args:
            certificate: the server's, with those between it and its authority.
            key: its private key.
            client_ca: certificates of the authorities that clients' are from; None asks clients for none.

        Raises:
            UserError: a file is missing, damaged, or the key another certificate's.
        """
        context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key)
        context.num_tickets = 0  # sessions are long: none is taken up again
        if client_ca is not None:
            _trust(context, client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        first = ssl.PEM_cert_to_DER_cert(_first_certificate(certificate))
        return cls(context, fingerprint(first))

    def accept(self, connection: socket.socket, seconds: float) -> TlsConnection:
        """The handshake, within so many seconds; ProtocolError where it fails."""
        return TlsConnection(connection, self.context, seconds)


@dataclass(frozen=True)
class ServerTrust:
    """What a client asks of its server.

    Attributes:
        context: the standard library's.
        fingerprint: what the server's certificate must have; None leaves it to the authorities.
    """

    context: ssl.SSLContext
    fingerprint: str | None

    @classmethod
    def load(
        cls, ca: str | None, expected: str | None = None, certificate: str | None = None, key: str | None = None
    ) -> ServerTrust:
        """From PEM files and a fingerprint.

        Args:
            ca: certificates of the authorities that the server's, made out to the name it is reached by, must be from.
            expected: the fingerprint of the server's certificate; without `ca` it alone decides.
            certificate, key: the client's own, where the server asks for one.

        Raises:
            UserError: neither `ca` nor a fingerprint, or a file or the fingerprint is damaged.
        """
        if ca is None and expected is None:
            raise UserError("TLS: give --tls-ca or --tls-fingerprint, or nobody knows who the server is")
        if (certificate is None) != (key is None):
            raise UserError("TLS: --tls-cert and --tls-key belong together; give both")
        context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key)
        if ca is not None:
            _trust(context, ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return cls(context, None if expected is None else _parsed(expected))

    def connect(self, connection: socket.socket, host: str, seconds: float) -> TlsConnection:
        """The handshake, within so many seconds; ProtocolError where it fails or the server is another."""
        tls = TlsConnection(connection, self.context, seconds, host)
        if self.fingerprint is not None and not hmac.compare_digest(self.fingerprint, tls.peer_fingerprint or ""):
            tls.close()
            raise ProtocolError(
                f"TLS: the server's certificate has the fingerprint {tls.peer_fingerprint}; expected {self.fingerprint}"
            )
        return tls


class TlsConnection:
    """A TLS connection over a connected socket; one thread may send while another receives.

    Args:
        connection: the socket, which this object owns from now on, be it that it fails.
        context: as the side needs it.
        seconds: that the handshake may take.
        server_name: whom the client means to reach; None on the server's side.

    Raises:
        ProtocolError: the handshake failed, or took too long.
    """

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, seconds: float, server_name: str | None = None
    ) -> None:
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_name is None, server_name)
        self._state = threading.Lock()  # guards the three above
        self._sending = threading.Lock()  # keeps what was encrypted in order on its way to the socket
        try:
            self._handshake(time.monotonic() + seconds)
        except BaseException:
            connection.close()
            raise

    def _handshake(self, deadline: float) -> None:
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    self._flush(deadline)
                    self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
                    self._take(self._socket.recv(CIPHERTEXT_BYTES))
                finally:
                    self._flush(deadline)  # the last words, or the alert that says why there are none
        except TimeoutError:
            raise ProtocolError("TLS: the handshake took too long") from None
        except ssl.SSLError as error:
            raise ProtocolError(f"TLS: {_reason(error)}") from None
        except OSError as error:
            raise ProtocolError(f"TLS: the connection broke in the handshake ({error})") from None

    def _flush(self, deadline: float) -> None:
        if data := self._outgoing.read():
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            self._socket.sendall(data)

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    @property
    def peer_fingerprint(self) -> str | None:
        """Of the peer's certificate; None where it showed none."""
        certificate = self._tls.getpeercert(binary_form=True)
        return fingerprint(certificate) if certificate else None

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """As a socket's."""
        self._socket.setsockopt(level, option, value)

    def settimeout(self, seconds: float | None, /) -> None:
        """As a socket's."""
        self._socket.settimeout(seconds)

    def sendall(self, data: memoryview, /) -> None:
        """Encrypt and send all bytes."""
        with self._sending:
            with self._state:
                self._tls.write(data)
                encrypted = self._outgoing.read()
            self._socket.sendall(encrypted)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive and decrypt up to as many bytes as the buffer has; 0 where the peer has closed."""
        while True:
            with self._state:
                try:
                    return self._tls.read(len(buffer), buffer)  # type: ignore[return-value]
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    return 0
            data = self._socket.recv(CIPHERTEXT_BYTES)
            with self._state:
                self._take(data)

    def shutdown(self, how: int, /) -> None:
        """As a socket's; wakes threads that wait in it."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Free the descriptor."""
        self._socket.close()


def _context(protocol: int, certificate: str | None, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:  # an SSLError among them
            raise UserError(f"TLS: certificate {certificate} and key {key}: {_reason(error)}") from None
        if os.stat(key or certificate).st_mode & stat.S_IROTH:
            logger.warning("TLS: key %s can be read by every user of this machine; chmod 600 it", key or certificate)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by the server alone")


def _trust(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise UserError(f"TLS: authorities {path}: {_reason(error)}") from None


def _first_certificate(path: str) -> str:
    text = Path(path).read_text()  # which `_context` has read before
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]


def _parsed(text: str) -> str:
    try:
        digest = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        digest = b""
    if len(digest) != FINGERPRINT_BYTES:
        raise UserError(f"TLS: fingerprint {text!r}: expected the SHA-256 of a certificate, 64 hexadecimal digits")
    return digest.hex()


def _reason(error: Exception) -> str:
    """OpenSSL's reason in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return printable(f"the certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "the peer does not speak TLS: start it with a certificate, or leave TLS out on this side"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer closed the connection in the handshake"
    if isinstance(error, ssl.SSLError) and error.reason:
        return printable(error.reason.lower().replace("_", " "))
    return printable(str(getattr(error, "strerror", None) or error))
