"""Ring arithmetic against schoolbook products and, bit for bit, `PlainRing`, in exact integers; primes; bit packing.

Primes below 2^27 and n of 64 or more are the kernels' of `words32_numba`, all else those' of `words64_numba`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from support.plain_ring import PlainRing

from autoprivacy.errors import UserError
from autoprivacy.he.ring.bit_packing import pack_bits, pack_polynomials, packed_bytes, unpack_bits, unpack_polynomials
from autoprivacy.he.ring.primes import WORD32_PRIME_BITS, is_prime, prime_size
from autoprivacy.he.ring.ring import Ring, minimal_root, ntt_primes, primes_for
from autoprivacy.he.ring.weight_products import WeightProducts

# Small, middle and largest primes, a single one and several.
RINGS = [
    (2, (5,)),
    (8, (17, 97)),
    (16, ntt_primes(1 << 27, 16, 3)),
    (64, ntt_primes(1 << 60, 64, 2)),
    (64, ntt_primes(1 << 27, 64, 3)),
    (128, (257, *ntt_primes(1 << 20, 128, 1))),
    (256, ntt_primes(1 << 26, 256, 2)),
]


def random_polynomials(ring: Ring, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Uniform residues [*shape, k, n], the largest residue in the first places of every row."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, prime, (*shape, ring.degree), dtype=np.uint64) for prime in ring.primes]
    polynomials = np.stack(rows, axis=-2)
    polynomials[..., :2] = np.array(ring.primes, np.uint64)[:, None] - np.uint64(1)
    return polynomials.astype(ring.dtype)


def products(
    ring: Ring, x: np.ndarray, weights: np.ndarray, inputs: np.ndarray, outputs: np.ndarray, count: int
) -> np.ndarray:
    """The sums of products, the weights put in two parts."""
    result = WeightProducts(ring, inputs, outputs, count)
    for first in (0, len(weights) // 2):
        result.put(first, weights[first:])
    return result.sums(x)


def schoolbook(x: np.ndarray, y: np.ndarray, prime: int) -> list[int]:
    """x * y in Z_prime[X]/(X^n + 1), term by term."""
    degree = len(x)
    result = [0] * degree
    for (i, a), (j, b) in itertools.product(enumerate(x.tolist()), enumerate(y.tolist())):
        result[(i + j) % degree] += a * b if i + j < degree else -a * b
    return [value % prime for value in result]


@pytest.mark.parametrize(("degree", "primes"), RINGS)
def test_transform_product_is_the_negacyclic_product(degree: int, primes: tuple[int, ...]) -> None:
    ring = Ring(degree, primes)
    assert ring.dtype == (np.uint32 if degree >= 64 and primes[-1] < 1 << 27 else np.uint64)
    x, y = random_polynomials(ring, (3,)), random_polynomials(ring, (3,), seed=1)
    x[0], y[0] = (np.array(primes, ring.dtype)[:, None] - ring.dtype.type(1),) * 2
    before = x.copy()
    product = ring.inverse(ring.multiply(ring.forward(x), ring.forward(y)))
    for t, (i, prime) in itertools.product(range(3), enumerate(primes)):
        assert product[t, i].tolist() == schoolbook(x[t, i], y[t, i], prime)
    assert np.array_equal(ring.inverse(ring.forward(x)), x)
    assert np.array_equal(x, before)


@pytest.mark.parametrize(("degree", "prime"), [(8, 97), (64, 257), (128, 257), (64, ntt_primes(1 << 40, 64, 1)[0])])
def test_transform_evaluates_at_odd_powers_of_the_minimal_root_in_bit_reversed_order(degree: int, prime: int) -> None:
    ring = Ring(degree, (prime,))
    root = minimal_root(degree, prime)
    if prime < 1000:
        assert root == min(value for value in range(prime) if pow(value, degree, prime) == prime - 1)
    x = random_polynomials(ring, ())[0]
    bits = degree.bit_length() - 1
    transformed = ring.forward(x[None])[0].tolist()
    for position in range(degree):
        point = pow(root, 2 * int(f"{position:0{bits}b}"[::-1], 2) + 1, prime)
        expected = sum(value * pow(point, power, prime) for power, value in enumerate(x.tolist())) % prime
        assert transformed[position] == expected


@pytest.mark.parametrize(
    ("degree", "primes"),
    [
        (16, (7681,)),
        (64, (7681,)),
        *((4096, ntt_primes(1 << bits, 4096, 2)) for bits in range(20, 28)),
        *((degree, ntt_primes(1 << 27, degree, 1)) for degree in (128, 256, 512, 1024, 2048, 8192)),
        (32768, ntt_primes(1 << 27, 32768, 1)),
        (1024, ntt_primes(1 << 28, 1024, 2)),
        (4096, ntt_primes(1 << 60, 4096, 3)),
    ],
)
def test_kernels_agree_bit_for_bit_with_exact_integers(degree: int, primes: tuple[int, ...]) -> None:
    compiled, plain = Ring(degree, primes), PlainRing(degree, primes)
    x = random_polynomials(compiled, (4, 2))
    x[0, 0] = np.array(primes, compiled.dtype)[:, None] - compiled.dtype.type(1)
    x[0, 1] = 0
    x[1, 0] *= np.random.default_rng(3).integers(0, 2, degree).astype(compiled.dtype)
    words = np.random.default_rng(4).integers(0, 1 << 8 * compiled.dtype.itemsize, x.shape, compiled.dtype)
    words[0] = np.iinfo(compiled.dtype).max
    weights = random_polynomials(compiled, (6,), seed=1)
    inputs, outputs = np.array([0, 1, 2, 3, 0, 0]), np.array([2, 0, 0, 2, 2, 2])
    signed = np.random.default_rng(2).integers(-(1 << 63), (1 << 63) - 1, (2, degree))
    signed[0, :4] = [-(1 << 63), (1 << 63) - 1, 0, -1]
    signed[1, : 2 * len(primes)] = [sign * prime for sign in (1, -1) for prime in primes]
    for name, arguments in {
        "forward": (x,),
        "inverse": (x,),
        "multiply": (x, x[::-1], x),
        "scale": (words, [prime - 1 for prime in primes]),
        "fraction": (x,),
        "reduce": (signed,),
    }.items():
        results = [getattr(ring, name)(*arguments) for ring in (compiled, plain)]
        assert results[0].dtype == results[1].dtype == (np.uint64 if name == "fraction" else compiled.dtype)
        assert np.array_equal(*results), name
    assert np.array_equal(compiled.inverse(compiled.forward(x)), x)
    sums = [products(ring, x, weights, inputs, outputs, 3) for ring in (compiled, plain)]
    assert np.array_equal(*sums)


@pytest.mark.parametrize(("degree", "bits"), [(8, 60), (64, 27), (64, 20)])
def test_elementwise_operations_equal_integer_arithmetic(degree: int, bits: int) -> None:
    primes = ntt_primes(1 << bits, degree, 2)
    ring = Ring(degree, primes)
    x, y = random_polynomials(ring, (2,)), random_polynomials(ring, (2,), seed=1)
    y[1] = 0
    modulus = np.array(primes, object)[:, None]
    a, b = x.astype(object), y.astype(object)
    for result, expected in [
        (ring.add(x, y), a + b),
        (ring.subtract(x, y), a - b),
        (ring.negate(y), -b),
        (ring.multiply(x, y), a * b),
        (ring.multiply(x, y[0]), a * b[0]),
        (ring.multiply(x, y, plus=x), a * b + a),
        (ring.multiply(x, x[0], plus=y), a * a[0] + b),
        (ring.scale(x, [3, primes[1] - 1]), a * np.array([3, -1], object)[:, None]),
    ]:
        assert np.array_equal(result.astype(object), expected % modulus)


@pytest.mark.parametrize(("degree", "primes"), [(8, (17, 97)), (64, (257, 641)), (64, ntt_primes(1 << 27, 64, 2))])
def test_reduce_gives_residues_of_signed_integers(degree: int, primes: tuple[int, ...]) -> None:
    ring = Ring(degree, primes)
    values = np.random.default_rng(0).integers(-(1 << 63), (1 << 63) - 1, degree)
    edges = [-(1 << 63), (1 << 63) - 1, -1 << 32, 1 << 32, -1, 0, 1, primes[0]]
    values[:8] = edges
    assert ring.reduce(values).tolist() == [[int(value) % prime for value in values.tolist()] for prime in primes]


@pytest.mark.parametrize(("degree", "bits"), [(16, 60), (64, 27)])
def test_fraction_is_the_sum_of_residues_over_primes_modulo_one(degree: int, bits: int) -> None:
    primes = ntt_primes(1 << bits, degree, 3)
    ring = Ring(degree, primes)
    x = random_polynomials(ring, ())
    x[:, 3] = 0
    q = math.prod(primes)
    for j, fraction in enumerate(ring.fraction(x).tolist()):
        exact = sum(int(value) * (q // prime) for value, prime in zip(x[:, j], primes, strict=True)) % q
        shortfall = ((exact << 64) // q - fraction) % (1 << 64)
        assert shortfall <= 2 * len(primes)


@pytest.mark.parametrize(("degree", "primes"), [(16, (97, 193)), (64, (257, *ntt_primes(1 << 27, 64, 1)))])
def test_sums_of_products_take_any_middle_axes(degree: int, primes: tuple[int, ...]) -> None:
    ring = Ring(degree, primes)
    x, weights = random_polynomials(ring, (3, 3)), random_polynomials(ring, (4,), seed=1)
    inputs, outputs = np.array([2, 0, 0, 1]), np.array([1, 3, 1, 1], np.int32)
    result = products(ring, x, weights, inputs, outputs, 4)
    expected = np.zeros((4, 3, 2, degree), object)
    for p in range(4):
        expected[outputs[p]] += x[inputs[p]].astype(object) * weights[p].astype(object)
    assert np.array_equal(result.astype(object), expected % np.array(primes, object)[:, None])
    assert np.array_equal(products(ring, x[:, 0], weights, inputs, outputs, 4), result[:, 0])
    nothing = products(ring, x, weights[:0], inputs[:0], outputs[:0], 2)
    assert nothing.shape == (2, 3, 2, degree) and not nothing.any()
    assert products(ring, x, weights[:0], inputs[:0], outputs[:0], 0).shape == (0, 3, 2, degree)


@pytest.mark.parametrize(("degree", "bits"), [(64, 27), (64, 26), (8, 27), (8, 60)])
def test_more_products_than_the_sums_hold_are_folded(degree: int, bits: int) -> None:
    primes = ntt_primes(1 << bits, degree, 2)
    ring = Ring(degree, primes)
    # 255 products of 60-bit residues fill 128 bits, 1,023 of 27-bit ones 64; a second fold at twice as many
    count = 2500
    largest = np.tile(np.array(primes, ring.dtype)[:, None] - ring.dtype.type(1), (count, 1, degree))
    zeros = np.zeros(count, np.int64)
    expected = np.array([count % prime for prime in primes])[:, None]
    assert (products(ring, largest[:1], largest, zeros, zeros, 1) == expected).all()


def test_wrong_shapes_and_indices_are_refused() -> None:
    ring = Ring(8, (17,))
    x = np.zeros((2, 1, 8), np.uint64)
    with pytest.raises(ValueError, match="polynomials: expected uint64"):
        ring.forward(x[..., :4])
    with pytest.raises(ValueError, match="polynomials: expected uint64"):
        ring.forward(x.astype(np.int64))
    with pytest.raises(ValueError, match="coefficients: expected int64"):
        ring.reduce(np.zeros(8, np.uint64))
    with pytest.raises(ValueError, match="factor: expected the shape"):
        ring.multiply(x, x[:1])
    with pytest.raises(ValueError, match="addend: expected the shape"):
        ring.multiply(x, x, plus=x[0])
    with pytest.raises(ValueError, match="inputs: expected uint64 .3 or more, "):
        products(ring, x, x[:1], np.array([2]), np.array([0]), 1)
    with pytest.raises(ValueError, match="inputs: expected uint64"):
        products(ring, x.astype(np.uint32), x[:1], np.array([0]), np.array([0]), 1)
    with pytest.raises(ValueError, match="inputs: expected 0 or more, got -1"):
        products(ring, x, x[:1], np.array([-1]), np.array([0]), 1)
    with pytest.raises(ValueError, match="outputs: expected 0 to 0, got -1 to -1"):
        products(ring, x, x[:1], np.array([0]), np.array([-1]), 1)
    with pytest.raises(ValueError, match="expected as many"):
        WeightProducts(ring, np.array([0]), np.array([0, 0]), 1)
    small = Ring(64, ntt_primes(1 << 27, 64, 1))
    with pytest.raises(ValueError, match="polynomials: expected uint32"):
        small.forward(np.zeros((1, 64), np.uint64))


@pytest.mark.parametrize(
    ("degree", "primes"),
    [(6, (13,)), (1, (3,)), (8, ()), (8, (17, 17)), (8, (33,)), (8, (19,)), (8, ((1 << 60) + 33,))],
)
def test_ring_refuses_what_has_no_transform(degree: int, primes: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="expected"):
        Ring(degree, primes)


def test_is_prime_equals_trial_division_and_withstands_pseudoprimes() -> None:
    for value in range(2000):
        assert is_prime(value) == (value > 1 and all(value % d for d in range(2, math.isqrt(value) + 1)))
    # Carmichael numbers, and the least strong pseudoprimes to the first 4 and the first 9 to 11 prime bases.
    composites = (561, 41041, 3215031751, 3825123056546413051)
    assert not any(is_prime(value) for value in composites)
    assert is_prime((1 << 61) - 1)


def test_ntt_primes_are_the_largest_below_the_bound() -> None:
    assert ntt_primes(12289, 2048, 0) == ()
    assert ntt_primes(12290, 2048, 1) == (12289,)
    with pytest.raises(UserError, match="there are 0, wanted 1"):
        ntt_primes(12289, 2048, 1)
    assert ntt_primes(1 << 12, 64, 3) == tuple(
        [value for value in range((1 << 12) - 1, 0, -1) if value % 128 == 1 and is_prime(value)][:3]
    )
    assert ntt_primes(1 << 60, 8192, 3)[2] > 1 << 59


@pytest.mark.parametrize(
    ("log2_q", "degree", "maximum_bits", "count"),
    [
        (26, 1024, 60, 1),
        (35.2, 4096, 60, 1),
        (59.99, 2048, 60, 1),
        (60.5, 4096, 60, 2),
        (76, 4096, 60, 2),
        (78, 4096, 27, 3),
        (179.9, 8192, 60, 3),
        (180, 8192, 60, 4),  # three primes below 2^60 stay below 2^180
        (208, 8192, 27, 8),
    ],
)
def test_primes_for_is_tight_and_minimal(log2_q: float, degree: int, maximum_bits: int, count: int) -> None:
    primes = primes_for(log2_q, degree, maximum_bits)
    assert len(primes) == len(set(primes)) == count
    assert all(is_prime(prime) and prime % (2 * degree) == 1 and prime < 1 << maximum_bits for prime in primes)
    assert 0 <= sum(math.log2(prime) for prime in primes) - log2_q < 0.05
    assert list(primes) == sorted(primes, reverse=True)


def test_primes_for_keeps_clear_of_the_plaintext_modulus() -> None:
    assert primes_for(34, 8192, 27) == (163841, 114689)
    others = primes_for(34, 8192, 27, coprime_to=114689)
    assert 114689 not in others and math.prod(others) >= 1 << 34 and math.log2(math.prod(others)) < 36
    assert primes_for(26, 4096, 27, coprime_to=3 * 5) == primes_for(26, 4096, 27)


def test_primes_for_refuses_impossible_sizes() -> None:
    with pytest.raises(UserError, match="allow larger primes"):
        primes_for(100, 4096, 16)
    with pytest.raises(UserError, match="expected above 0"):
        primes_for(0, 4096)
    with pytest.raises(UserError, match="2 to 60"):
        primes_for(100, 4096, 62)


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 13, 26, 31, 32, 33, 38, 59, 60, 63])
def test_bits_are_one_little_endian_integer(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in (0, 1, 2, 63, 64, 65, 300):
        values = rng.integers(0, 1 << bits, count, dtype=np.uint64)
        values[:1] = (1 << bits) - 1
        packed = pack_bits(values, bits)
        number = sum(value << (index * bits) for index, value in enumerate(values.tolist()))
        assert packed == number.to_bytes(packed_bytes(count, bits), "little")
        assert np.array_equal(unpack_bits(packed, bits, count), values)


def test_small_primes_take_32_bit_words_where_their_transform_fits() -> None:
    degrees = (32, 64, 1 << 15, 1 << 16)
    dtypes = [Ring(degree, ntt_primes(1 << 27, degree, 1)).dtype for degree in degrees]
    assert dtypes == [np.uint64, np.uint32, np.uint32, np.uint64]
    assert Ring(64, (*ntt_primes(1 << 27, 64, 1), *ntt_primes(1 << 28, 64, 1))).dtype == np.uint64


def test_size_of_primes() -> None:
    narrow, wide = ntt_primes(1 << WORD32_PRIME_BITS, 1024, 2), ntt_primes(1 << 60, 1024, 1)
    assert prime_size(narrow) == prime_size((12289,)) == WORD32_PRIME_BITS == 27
    assert prime_size((*narrow, *wide)) == prime_size(ntt_primes(1 << 28, 1024, 1)) == 60
    with pytest.raises(ValueError, match="a prime of 61 bits"):
        prime_size(((1 << 61) - 1,))


@pytest.mark.parametrize(("degree", "bits", "dtype"), [(64, (27, 20), np.uint32), (256, (60, 32, 1), np.uint64)])
def test_polynomials_are_packed_in_lanes(degree: int, bits: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.integers(0, 1 << width, (3, degree)).astype(dtype) for width in bits], axis=1)
    values[0] = np.array([(1 << width) - 1 for width in bits], dtype)[:, None]
    packed = pack_polynomials(values, bits)
    rows = []
    for polynomial in values.tolist():
        for row, width in zip(polynomial, bits, strict=True):
            lanes = [
                sum(value << (j * width) for j, value in enumerate(row[lane :: degree // 64]))
                for lane in range(degree // 64)
            ]
            words = [lane >> (64 * word) & ((1 << 64) - 1) for word in range(width) for lane in lanes]
            rows.append(b"".join(word.to_bytes(8, "little") for word in words))
    assert packed == b"".join(rows)
    out = np.empty_like(values)
    unpack_polynomials(packed, bits, out)
    assert np.array_equal(out, values)
    with pytest.raises(ValueError, match=f"expected {len(packed)} bytes, got {len(packed) - 1}"):
        unpack_polynomials(packed[1:], bits, out)


def test_bit_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="value 8 does not fit into 3 bits"):
        pack_bits(np.array([8], np.uint64), 3)
    with pytest.raises(ValueError, match="expected 2 bytes, got 1"):
        unpack_bits(b"\0", 3, 4)
    with pytest.raises(ValueError, match="the last 4 bits are not zero"):
        unpack_bits(b"\0\x10", 3, 4)
    for bits in (0, 64):
        with pytest.raises(ValueError, match="expected 1 to 63"):
            pack_bits(np.zeros(1, np.uint64), bits)
