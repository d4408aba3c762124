"""A folder of sealed files: each encrypted under a key of its own, which is sealed under the key of the party, and
destroyed for good.

A file is a header and records of at most `RECORD` bytes. The header has, in the clear, a role, a number, and the digest
that the content is bound to; it authenticates all three. A record is AES-256-GCM under the file's key, its nonce the
record's place, so none is cut off, moved or of another file without being noticed. To destroy a file its key is
overwritten, then its name removed, each written through to the disk: a crash in between leaves a file that nobody
can read.

AES-GCM: NIST SP 800-38D, section 8.2; the party's key seals a random key under a random 96-bit nonce, at most 2^32
times.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from autoprivacy.errors import UserError

MAGIC = b"APBUNDL1"
KEY_BYTES, NONCE_BYTES, TAG_BYTES, DIGEST_BYTES = 32, 12, 16, 32
PREFIX = struct.Struct(f"<8s1sQ{DIGEST_BYTES}s")  # magic, role, number, digest
SEALED_KEY = NONCE_BYTES + KEY_BYTES + TAG_BYTES
HEADER_BYTES = PREFIX.size + SEALED_KEY
RECORD = 1 << 24
SUFFIX, TEMPORARY = ".bundle", ".part"


@dataclass(frozen=True)
class Seal:
    """What a file is for.

    Attributes:
        role: of the party, one byte.
        digest: of what the content is bound to, 32 bytes.
    """

    role: bytes
    digest: bytes

    def prefix(self, number: int) -> bytes:
        """The header's part in the clear."""
        return PREFIX.pack(MAGIC, self.role, number, self.digest)


class SealedFolder:
    """The files of one party; one process at a time uses a folder.

    Args:
        folder: made if it is missing.
        key: file with 32 secret bytes, made if it is missing; None: `key` in the folder.

    Raises:
        UserError: it cannot be used, another process uses it, others may write to it, or read the key file.
    """

    def __init__(self, folder: str | Path, key: str | Path | None = None) -> None:
        self.path = Path(folder)
        self._guard = threading.Lock()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) & 0o022:  # they could put files back, or links to others
                raise UserError(f"{self.path}: others may write to this folder; chmod 700 it")
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be used for bundles ({error.strerror}); name another folder"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(f"{self.path}: another process uses these bundles; name a folder for each party") from None
        try:
            self._key = AESGCM(_party_key(Path(key) if key is not None else self.path / "key"))
        except UserError:
            self.close()
            raise
        for left in self.path.glob(f"*{TEMPORARY}"):  # of a write that was killed
            left.unlink()

    def __enter__(self) -> SealedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def file(self, number: int) -> Path:
        """Where a number's content is."""
        return self.path / f"{number:016x}{SUFFIX}"

    def size(self) -> int:
        """Bytes of all files."""
        total = 0
        for path in self.path.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def files(self) -> Iterator[Path]:
        """All files, the oldest first."""
        ages = []
        for path in self.path.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another session has used it
                ages.append((path.stat().st_mtime_ns, path))
        yield from (path for _, path in sorted(ages))

    def write(self, number: int, seal: Seal, content: bytes) -> bytes:
        """Keep a content; it is on the disk when this returns.

        Returns:
            The file's mark, which no other file has, of the same number neither: `destroy` asks for it.

        Raises:
            UserError: it cannot be written, or the number has a file already.
        """
        path, key, nonce = self.file(number), AESGCM.generate_key(256), os.urandom(NONCE_BYTES)
        temporary, prefix, cipher = path.with_suffix(f".{nonce.hex()}{TEMPORARY}"), seal.prefix(number), AESGCM(key)
        mark = nonce + self._key.encrypt(nonce, key, prefix)
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(prefix + mark)
                for place, last, part in _records(content, RECORD):
                    stream.write(cipher.encrypt(_nonce(place), part, last))
                stream.flush()
                os.fsync(stream.fileno())
            with self._guard:
                if taken := path.exists():
                    temporary.unlink()
                else:
                    os.replace(temporary, path)
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise UserError(f"{path}: cannot be written ({error.strerror}); free some space or name another") from None
        if taken:
            raise UserError(f"bundle {number} is on disk already; expected a fresh number")
        return mark

    def check(self, path: Path, seal: Seal) -> int:
        """The number of a file that is for this; its header alone is read.

        Raises:
            UserError: it is damaged, another party's, bound to something else, or under another key.
        """
        try:
            with path.open("rb") as stream:
                header = stream.read(HEADER_BYTES)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise UserError(f"{path}: no bundle, or a damaged one; remove it")
        _, role, number, digest = PREFIX.unpack_from(header)
        if role != seal.role:
            raise UserError(f"{path}: the other party's bundle; name a folder for each party")
        if digest != seal.digest:
            raise UserError(f"{path}: a bundle for another network, policy or version; not used")
        if path != self.file(number):
            raise UserError(f"{path}: a bundle under another's name; remove it")
        self._open(path, header)
        return number

    def _open(self, path: Path, header: bytes) -> AESGCM:
        """The cipher of a file."""
        prefix, nonce, sealed = (
            header[: PREFIX.size],
            header[PREFIX.size :][:NONCE_BYTES],
            header[-KEY_BYTES - TAG_BYTES :],
        )
        try:
            return AESGCM(self._key.decrypt(nonce, sealed, prefix))
        except InvalidTag:
            raise UserError(f"{path}: damaged, used, or sealed under another key; remove it") from None

    def read(self, number: int, seal: Seal) -> tuple[bytearray, bytes]:
        """Content and mark of a number's file; UserError where `check` raises it, or the content is damaged."""
        path = self.file(number)
        self.check(path, seal)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        cipher, sealed = self._open(path, content[:HEADER_BYTES]), memoryview(content)[HEADER_BYTES:]
        opened = bytearray()
        try:
            for place, last, part in _records(sealed, RECORD + TAG_BYTES):
                opened += cipher.decrypt(_nonce(place), part, last)
        except InvalidTag:
            raise UserError(f"{path}: damaged; remove it") from None
        return opened, content[PREFIX.size : HEADER_BYTES]

    def destroy(self, number: int, mark: bytes | None = None) -> bool:
        """Make sure that nobody reads a file again.

        Args:
            number: its number.
            mark: of the file that is meant: a later one of the same number is left alone. None means any.

        Returns:
            Whether it was there; of several callers one alone gets True.
        """
        path = self.file(number)
        with self._guard:
            try:
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            except FileNotFoundError:
                return False
            try:
                if mark is not None and os.pread(handle, SEALED_KEY, PREFIX.size) != mark:
                    return False
                os.pwrite(handle, bytes(SEALED_KEY), PREFIX.size)
                os.fsync(handle)
            finally:
                os.close(handle)
            path.unlink()
            self._sync()
            return True

    def _sync(self) -> None:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _party_key(path: Path) -> bytes:
    """The bytes of a key file, which is made where it is missing."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"{path}: the key cannot be made ({error.strerror}); name another place") from None
    else:
        with open(handle, "wb") as stream:
            stream.write(AESGCM.generate_key(256))
            stream.flush()
            os.fsync(stream.fileno())
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UserError(f"{path}: others may read this key; chmod 600 it")
        key = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the key cannot be read ({error.strerror})") from None
    if len(key) != KEY_BYTES:
        raise UserError(f"{path}: a key of {len(key)} bytes, expected {KEY_BYTES}; remove it, and the bundles with it")
    return key


def _records(content: bytes | memoryview, size: int) -> Iterator[tuple[int, bytes, memoryview]]:
    """Place, what is authenticated beside it (whether it is the last), and part of every record; one at least."""
    view = memoryview(content)
    count = max(1, -(-len(view) // size))
    for place in range(count):
        yield place, b"last" if place == count - 1 else b"more", view[place * size : (place + 1) * size]


def _nonce(place: int) -> bytes:
    return place.to_bytes(NONCE_BYTES, "little")
