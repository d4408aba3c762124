"""The noise of real replies, which the protocol never computes."""

from __future__ import annotations

import numpy as np

from autoprivacy.he.bfv.cipher import ClientCipher
from autoprivacy.he.bfv.reply import FRACTION_BITS, ReplyForm


def decrypt_with_noise(client: ClientCipher, message: bytes, form: ReplyForm) -> tuple[np.ndarray, np.ndarray]:
    """The plaintexts of a reply, and the noise c0 + c1 s - q m / p of every coefficient.

    Returns:
        uint64 and float64 [ciphertexts, n]; 0 at coefficients that are not sent.
    """
    p, reader = client.parameters.plaintext_modulus, client._reader
    plain = reader.read(message, form, p)
    phases = np.empty(form.coefficients, np.uint64)
    for place, fractions in reader._phases(message, form):
        phases[place] = fractions
    exact = np.array([(int(value) << FRACTION_BITS) // p for value in plain], np.uint64)
    noise = (phases - exact).view(np.int64) / 2.0**FRACTION_BITS * float(client.parameters.q)
    return client._scatter(plain, form), client._scatter(noise, form)
