"""SEAL (through Pyfhel) as the maker of keys, and as the second opinion on encryption and decryption."""

from __future__ import annotations

import numpy as np
from Pyfhel import PyCtxt, Pyfhel, PyPtxt

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.seal_format import (
    PLAIN_HASH,
    SealCiphertext,
    SealPlaintext,
    read_ciphertext,
    read_plaintext,
    write_ciphertext,
    write_plaintext,
)
from autoprivacy.he.parameters.parameter_set import ParameterSet
from autoprivacy.he.ring.primes import MAXIMUM_PRIME_BITS, ntt_primes

NOT_BATCHING = "not valid for batching"


class SealContext:
    """A SEAL context for a parameter set, with a fresh key pair.

    SEAL keeps the last of two or more primes for key switching. Where the set names no such prime, one is appended so
    that ciphertexts are under all of the set's primes; nothing under that prime ever leaves this object.

    Raises:
        UserError: SEAL refuses the parameters.
    """

    def __init__(self, parameters: ParameterSet) -> None:
        self._parameters = parameters
        self._pyfhel = Pyfhel()
        special = _special_primes(parameters)
        status = "success"
        try:
            status = self._pyfhel.contextGen(
                "bfv",
                n=parameters.polynomial_degree,
                t=parameters.plaintext_modulus,
                sec=0,  # any other value replaces the primes by SEAL's own; ParameterSet has checked the security
                qi=[*parameters.primes, *special],
            )
        except ValueError as error:
            # Pyfhel builds a slot encoder at the end, which a p without batching (a power of two) has none of. The
            # context is complete by then.
            if NOT_BATCHING not in str(error):
                raise UserError(f"SEAL refuses {parameters}: {error}") from error
        if "success" not in status:
            raise UserError(f"SEAL refuses {parameters}: {status}")
        self._pyfhel.keyGen()

    def secret_key(self, with_special_prime: bool = False) -> np.ndarray:
        """The secret key under the set's primes, uint64 [k, n] in NTT form; with its key-switching prime [k + 1, n]."""
        parameters = self._parameters
        primes = parameters.deployed_primes if with_special_prime else parameters.primes
        words = read_plaintext(self._pyfhel.to_bytes_secret_key()).words
        return words.reshape(-1, parameters.polynomial_degree)[: len(primes)].astype(np.uint64)

    def encrypt(self, plain: np.ndarray) -> np.ndarray:
        """SEAL's public-key encryption of uint64 [m, n] modulo p: uint64 [m, 2, k, n], not in NTT form."""
        return np.stack([self._encrypt(row).polynomials for row in plain]).astype(np.uint64)

    def decrypt(self, ciphertexts: np.ndarray) -> np.ndarray:
        """SEAL's decryption of uint64 [m, 2, k, n], not in NTT form: uint64 [m, n] modulo p."""
        degree = self._parameters.polynomial_degree
        parameters_hash = self._encrypt(np.ones(degree, np.uint64)).parameters_hash
        plain = np.zeros((len(ciphertexts), degree), np.uint64)
        for row, polynomials in zip(plain, ciphertexts, strict=True):
            data = write_ciphertext(SealCiphertext(parameters_hash, False, polynomials))
            ciphertext = PyCtxt(pyfhel=self._pyfhel)
            ciphertext.from_bytes(data, "bfv")
            words = read_plaintext(self._pyfhel.decryptPtxt(ciphertext).to_bytes()).words
            row[: words.size] = words  # SEAL leaves out leading zeros
        return plain

    def _encrypt(self, row: np.ndarray) -> SealCiphertext:
        data = write_plaintext(SealPlaintext(PLAIN_HASH, row))
        plaintext = PyPtxt(pyfhel=self._pyfhel)
        plaintext.from_bytes(data, "bfv")
        return read_ciphertext(self._pyfhel.encryptPtxt(plaintext).to_bytes())


def _special_primes(parameters: ParameterSet) -> tuple[int, ...]:
    if parameters.key_switching_prime:
        return (parameters.key_switching_prime,)
    if len(parameters.primes) == 1:
        return ()
    candidates = ntt_primes(1 << MAXIMUM_PRIME_BITS, parameters.polynomial_degree, len(parameters.primes) + 1)
    return (next(prime for prime in candidates if prime not in parameters.primes),)
