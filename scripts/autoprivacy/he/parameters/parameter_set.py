"""The values that parameter selection is about: targets, flooding rules and BFV parameter sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from scipy.special import erfcinv

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.security import check_security
from autoprivacy.he.ring.primes import is_prime

FloodingKind = Literal["statistical", "paper", "none"]
DEGREES = tuple(1 << k for k in range(10, 16))  # polynomial degrees for which security is known
# The client multiplies polynomials of so many bits by its ternary secret exactly: n 2^(bits + 1) is to stay below a
# 60-bit prime at every n up to 2^15.
MAXIMUM_REPLY_BITS = 43


@dataclass(frozen=True)
class Target:
    """What a layer tolerates: a decryption error rate, or a noise size tau, and the share bits its circuit ignores.

    Exactly one of the two first is given. tau is the noise's standard deviation in least significant bits of the
    accumulator, tau = sigma * p / q = 1 / (2 z); the rate of wrong coefficients is erfc(z / sqrt 2).
    """

    decryption_error_rate: float | None = None
    tau: float | None = None
    ignored_share_bits: int = 0

    def __post_init__(self) -> None:
        if (self.decryption_error_rate is None) == (self.tau is None):
            raise UserError(f"target: give a decryption error rate or tau, not both or neither; got {self}")
        if self.decryption_error_rate is not None and not 0 < self.decryption_error_rate < 1:
            raise UserError(f"target: decryption error rate {self.decryption_error_rate}: expected between 0 and 1")
        if self.tau is not None and not self.tau > 0:
            raise UserError(f"target: tau {self.tau}: expected above 0")
        if self.ignored_share_bits < 0:
            raise UserError(f"target: ignored share bits {self.ignored_share_bits}: expected 0 or more")

    @property
    def z(self) -> float:
        """Half the distance between plaintexts in standard deviations of the noise, q / (2 p sigma)."""
        if self.tau is not None:
            return 1 / (2 * self.tau)
        return math.sqrt(2) * float(erfcinv(self.decryption_error_rate))


@dataclass(frozen=True)
class Flooding:
    """How the server's reply hides the weight-dependent noise.

    statistical: a Gaussian of 2^kappa times the weight-dependent noise. paper: n' = 4n and log q' = 3 log q
    (section 2, HE Parameter Selection). none: re-randomised only.
    """

    kind: FloodingKind
    kappa: int = 40

    def __post_init__(self) -> None:
        if self.kind not in get_args(FloodingKind):
            raise UserError(f"flooding {self.kind!r}: expected one of {get_args(FloodingKind)}")
        if self.kappa < 1:
            raise UserError(f"flooding: kappa {self.kappa}; expected at least 1")


@dataclass(frozen=True)
class ReplyBits:
    """Bits of a coefficient of the two polynomials of a reply, c0 and c1: sent as round(2^bits c / q).

    The decryption is c0 + c1 s, and c1's rounding is multiplied by s, so c1 has at least as many bits as c0.
    """

    c0: int
    c1: int

    def __post_init__(self) -> None:
        if not 1 <= self.c0 <= self.c1 <= MAXIMUM_REPLY_BITS:
            raise UserError(
                f"reply bits c0 = {self.c0}, c1 = {self.c1}: expected 1 <= c0 <= c1 <= {MAXIMUM_REPLY_BITS}; leave "
                "them out to have them computed"
            )


@dataclass(frozen=True)
class ParameterSet:
    """A BFV parameter set: plaintext modulus p, polynomial degree n, the primes of q.

    It refuses to exist below 128 bits of security as deployed (all primes, the key-switching one included).

    Attributes:
        plaintext_modulus: p.
        polynomial_degree: n, a power of two from 1024 to 32768.
        primes: the primes of the ciphertext modulus, each == 1 mod 2n.
        key_switching_prime: the special prime where rotations need one.
        insecure_for_test: lets a test use a small set; nothing else may set it.
        plaintext_factors: in slot packing, the primes whose product a composite p is (the paper's section 2, BFV
            Batching), ascending, each == 1 mod 2n: layers are evaluated modulo each. Empty: modulo p itself.
    """

    plaintext_modulus: int
    polynomial_degree: int
    primes: tuple[int, ...]
    key_switching_prime: int | None = None
    insecure_for_test: bool = False
    plaintext_factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        n = self.polynomial_degree
        if not self.insecure_for_test and n not in DEGREES:
            raise UserError(f"polynomial degree {n}: expected a power of two among {DEGREES}; take one of them")
        if self.plaintext_modulus < 2:
            raise UserError(f"plaintext modulus {self.plaintext_modulus}: expected at least 2")
        if not self.primes or len(set(self.deployed_primes)) != len(self.deployed_primes):
            raise UserError(f"ciphertext modulus: expected distinct primes, got {self.deployed_primes}")
        wrong = [prime for prime in self.deployed_primes if prime % (2 * n) != 1]
        if wrong:
            raise UserError(f"ciphertext primes {wrong}: expected == 1 mod {2 * n} (the NTT at n = {n} needs it)")
        if self.plaintext_factors:
            _check_factors(self.plaintext_factors, self.plaintext_modulus, n)
        if self.q <= self.largest_factor:
            raise UserError(
                f"ciphertext modulus {self.q}: expected above the plaintext modulus {self.largest_factor}; take "
                "larger or more primes"
            )
        if not self.insecure_for_test:
            check_security(n, self.log2_q)

    @property
    def deployed_primes(self) -> tuple[int, ...]:
        """All primes that keys or ciphertexts exist under, the key-switching prime last."""
        return self.primes + ((self.key_switching_prime,) if self.key_switching_prime else ())

    @property
    def q(self) -> int:
        """The ciphertext modulus, the product of `primes`."""
        return math.prod(self.primes)

    @property
    def log2_q(self) -> float:
        """Bits of the modulus as deployed, the key-switching prime included."""
        return sum(math.log2(prime) for prime in self.deployed_primes)

    @property
    def largest_factor(self) -> int:
        """The modulus under which plaintexts lie closest: the largest factor of p, p itself where there are none."""
        return max(self.plaintext_factors, default=self.plaintext_modulus)

    @cached_property
    def components(self) -> tuple[ParameterSet, ...]:
        """The sets that layers are evaluated under: one per factor of p with all else the same, this one without."""
        if not self.plaintext_factors:
            return (self,)
        return tuple(replace(self, plaintext_modulus=factor, plaintext_factors=()) for factor in self.plaintext_factors)

    def as_json(self) -> dict[str, Any]:
        """The set as it stands in a policy file."""
        return {
            "plaintext_modulus": self.plaintext_modulus,
            "polynomial_degree": self.polynomial_degree,
            "primes": list(self.primes),
            "key_switching_prime": self.key_switching_prime,
            "plaintext_factors": list(self.plaintext_factors),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ParameterSet:
        """The inverse of `as_json`, with every check."""
        return cls(
            int(value["plaintext_modulus"]),
            int(value["polynomial_degree"]),
            tuple(int(prime) for prime in value["primes"]),
            value.get("key_switching_prime"),
            plaintext_factors=tuple(int(factor) for factor in value.get("plaintext_factors", ())),
        )


def _check_factors(factors: tuple[int, ...], p: int, degree: int) -> None:
    wrong = [factor for factor in factors if factor % (2 * degree) != 1 or not is_prime(factor)]
    if wrong:
        raise UserError(f"plaintext factors {wrong}: expected primes == 1 mod {2 * degree} (batching at n = {degree})")
    if len(factors) < 2 or list(factors) != sorted(set(factors)):
        raise UserError(f"plaintext factors {factors}: expected two or more distinct primes, ascending; none for one")
    if math.prod(factors) != p:
        raise UserError(f"plaintext factors {factors}: their product is {math.prod(factors)}; expected p = {p}")
