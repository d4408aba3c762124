"""Keys of the hash that masks what lookups send: every use has one of its own, so that nothing is
masked twice alike.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from autoprivacy.ot.labels import LABEL_BYTES


class HashKeys:
    """A session's keys one after the other: the counters 0, 1, .. encrypted under a public key of the session.

    Both parties draw them in the same order. A key serves one role of up to a wave's lookups, whose labels are
    pseudorandom and so differ; none is drawn twice.

    Args:
        session_key: 16 public bytes.
        drawn: how many were drawn before, where lookups that were made from there are computed again.
    """

    def __init__(self, session_key: bytes, drawn: int = 0) -> None:
        self.session_key, self.drawn = session_key, drawn
        self._encryptor = Cipher(algorithms.AES(session_key), modes.ECB()).encryptor()

    def draw(self, count: int) -> np.ndarray:
        """The next `count` keys, uint8 [count, 16]."""
        counters = np.zeros((count, 2), "<u8")
        counters[:, 0] = np.arange(self.drawn, self.drawn + count)
        self.drawn += count
        return np.frombuffer(self._encryptor.update(counters.tobytes()), np.uint8).reshape(-1, LABEL_BYTES).copy()
