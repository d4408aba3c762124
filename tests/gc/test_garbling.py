"""Half-gates and projected outputs: decoding, agreement of the backends, the table's form, wrong inputs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from support.random_circuits import number, random_circuit

from autoprivacy.backend import BACKEND_VARIABLE
from autoprivacy.errors import UserError
from autoprivacy.gc.activation import Activation, modulus_bits
from autoprivacy.gc.circuit import AND, Circuit, CircuitBuilder
from autoprivacy.gc.garbling import (
    CHUNK,
    SEED_BYTES,
    Garbled,
    chunks,
    evaluate,
    garble,
    garble_chunks,
    table_bytes,
)
from autoprivacy.gc.garbling_kernels import load_kernels
from autoprivacy.ot import kernels
from autoprivacy.ot.extension import extension_bytes
from autoprivacy.ot.labels import LABEL_BYTES, encode, offset_bits, random_delta, zero_labels
from autoprivacy.ot.trees import DEFAULT_TREE_BITS
from autoprivacy.randomness.generator import SecureRandom

BACKENDS = ["numpy", "numba"] if kernels.numba_supported() else ["numpy"]
WORD = (1 << 64) - 1


class Setting:
    """A garbler's offset and the evaluator's labels, all from one test key."""

    def __init__(self, circuit: Circuit, count: int, key: int = 1) -> None:
        self.random = SecureRandom(bytes([key]) * 32)
        self.delta = random_delta(self.random)
        self.circuit, self.count = circuit, count
        self.evaluator_zero = self.random.words((circuit.evaluator_bits, count, 2))

    def garble(self, modulus: int, backend: str) -> Garbled:
        return self.garble_into((modulus,), backend)

    def garble_into(self, moduli: tuple[int, ...], backend: str) -> Garbled:
        return garble(self.circuit, self.count, self.delta, self.evaluator_zero, moduli, self.random, backend)

    def evaluate(
        self, garbled: Garbled, garbler: np.ndarray, evaluator: np.ndarray, modulus: int, backend: str
    ) -> np.ndarray:
        """The unmasked outputs for these input numbers."""
        return self.evaluate_into(garbled, garbler, evaluator, (modulus,), backend)[0]

    def evaluate_into(
        self, garbled: Garbled, garbler: np.ndarray, evaluator: np.ndarray, moduli: tuple[int, ...], backend: str
    ) -> np.ndarray:
        """The same modulo each of several numbers."""
        garbler_labels = encode(garbled.garbler_zero, self.delta, garbler.astype(np.uint64))
        labels = encode(self.evaluator_zero, self.delta, evaluator.astype(np.uint64))
        masked = evaluate(self.circuit, self.count, garbled.tables, garbler_labels, labels, moduli, backend)
        assert masked.shape == garbled.output_masks.shape == (len(moduli), self.count)
        assert (masked < np.array(moduli)[:, None]).all() and (garbled.output_masks < np.array(moduli)[:, None]).all()
        return (masked.astype(np.int64) - garbled.output_masks.astype(np.int64)) % np.array(moduli)[:, None]


def one_gate(flip_x: int, flip_y: int, flip_out: int) -> Circuit:
    builder = CircuitBuilder()
    x, y = builder.garbler_inputs(1)[0], builder.evaluator_inputs(1)[0]
    return builder.build([builder.and_(x ^ flip_x, y ^ flip_y) ^ flip_out])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flips", list(product((0, 1), repeat=3)))
def test_one_and_gate_decodes_for_all_inputs_and_colours(backend: str, flips: tuple[int, int, int]) -> None:
    count = 64
    setting = Setting(one_gate(*flips), count)
    x, y = np.arange(count) % 2, np.arange(count) // 2 % 2
    garbled = setting.garble(13, backend)
    colours = (garbled.garbler_zero[0, :, 0] & np.uint64(1)) * np.uint64(2) + (
        setting.evaluator_zero[0, :, 0] & np.uint64(1)
    )
    assert len(np.unique(colours)) == 4
    outputs = setting.evaluate(garbled, x, y, 13, backend)
    np.testing.assert_array_equal(outputs, ((x ^ flips[0]) & (y ^ flips[1])) ^ flips[2])


def as_int(words: np.ndarray) -> int:
    return int(words[0]) | int(words[1]) << 64


def label_hash(key: bytes, label: int) -> int:
    """H(x) = E(sigma(x)) ^ sigma(x), on Python integers."""
    low, high = label & WORD, label >> 64
    sigma = (low ^ high) | low << 64
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return sigma ^ int.from_bytes(encryptor.update(sigma.to_bytes(16, "little")), "little")


def expected_table_entry(
    setting: Setting, seed: bytes, x: int, y: int, flips: tuple[int, int, int], p: int
) -> tuple[int, int, int, int]:
    """Both AND ciphertexts, the output's and its mask for one instance, step by step from the papers."""
    delta = as_int(setting.delta)
    derive = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    keys = [derive.update(i.to_bytes(16, "little")) for i in range(3)]
    x, y = x ^ delta * flips[0], y ^ delta * flips[1]
    colour_x, colour_y = x & 1, y & 1
    generator = label_hash(keys[0], x) ^ label_hash(keys[0], x ^ delta) ^ delta * colour_y
    evaluator = label_hash(keys[1], y) ^ label_hash(keys[1], y ^ delta) ^ x
    out = label_hash(keys[0], x) ^ generator * colour_x
    out ^= label_hash(keys[1], y) ^ (evaluator ^ x) * colour_y
    labels = [out ^ delta * flips[2], out ^ delta * (1 - flips[2])]  # of value 0, of value 1
    residues = [(label_hash(keys[2], label) * p) >> 128 for label in labels]
    free = labels[0] & 1  # the value whose label has colour 0
    mask = (residues[free] - free) % p
    ciphertext = (1 - free + mask - residues[1 - free]) % p
    return generator, evaluator, ciphertext, mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 1)])
def test_tables_are_half_gates_and_projections_by_the_book(backend: str, flips: tuple[int, int, int]) -> None:
    p, count = 251, 9
    setting = Setting(one_gate(*flips), count)
    garbled = setting.garble(p, backend)
    (table,) = garbled.tables
    seed, ciphertexts = table[:SEED_BYTES].tobytes(), table[SEED_BYTES + 32 * count :]
    rows = table[SEED_BYTES : SEED_BYTES + 32 * count].copy().view(np.uint64).reshape(2, count, 2)
    for i in range(count):
        x, y = as_int(garbled.garbler_zero[0, i]), as_int(setting.evaluator_zero[0, i])
        got = as_int(rows[0, i]), as_int(rows[1, i]), int(ciphertexts[i]), int(garbled.output_masks[0, i])
        assert got == expected_table_entry(setting, seed, x, y, flips, p)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_decode(backend: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, modulus = 130, (1 << 9, 1021)[seed % 2]
    garbler, evaluator = rng.integers(0, 2, (6, count)) == 1, rng.integers(0, 2, (5, count)) == 1
    circuit, expected = random_circuit(rng, garbler, evaluator, gates=150, outputs=9)
    setting = Setting(circuit, count, seed + 1)
    garbled = setting.garble(modulus, backend)
    outputs = setting.evaluate(garbled, number(garbler), number(evaluator), modulus, backend)
    np.testing.assert_array_equal(outputs, number(expected) % modulus)


@pytest.mark.parametrize("minimum", [0, -128])
@pytest.mark.parametrize("modulus", [114689, 1 << 17, 4079617])
@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 10_000])
def test_activations_decode_and_backends_agree_bit_for_bit(modulus: int, count: int, minimum: int) -> None:
    shift = modulus_bits(modulus) - 11
    activation = Activation(modulus, shift, minimum, 255 if minimum == 0 else 127, shift if count % 2 else 0)
    rng = np.random.default_rng(count)
    client, server = rng.integers(0, modulus, (2, count)).astype(np.uint64)
    garbler, evaluator = activation.garbler_input(server), activation.evaluator_input(client)
    expected = activation.reference(client, server)
    moduli = (modulus, 1 << 20, 65537)[: 1 + count % 3]
    results = []
    for backend in BACKENDS:
        setting = Setting(activation.circuit, count)
        garbled = setting.garble_into(moduli, backend)
        assert [table.size for table in garbled.tables] == table_bytes(activation.circuit, moduli, count)
        outputs = setting.evaluate_into(garbled, garbler, evaluator, moduli, backend)
        for row, p in zip(outputs, moduli, strict=True):
            np.testing.assert_array_equal(row, expected % p)
        results.append(np.concatenate([*garbled.tables, garbled.output_masks.view(np.uint8).reshape(-1)]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_relu_of_17_bits_takes_849_bytes() -> None:
    circuit = Activation(1 << 17, 6, 0, 255).circuit
    assert table_bytes(circuit, (1 << 17,), CHUNK + 8) == [16 + CHUNK * 849, 16 + 8 * 849]
    assert table_bytes(circuit, (1 << 17, 1 << 20), 8) == [16 + 8 * (849 + 20)]
    assert table_bytes(circuit, (1 << 17,), 0) == [] and chunks(0) == []


@pytest.mark.parametrize(
    ("modulus", "shift", "ignored", "at_most"),
    [(114689, 6, 0, 1332), (1 << 20, 9, 0, 1410), (114689, 9, 9, 800), (1 << 20, 9, 9, 960)],
)
def test_bytes_of_a_relu_in_all_phases(modulus: int, shift: int, ignored: int, at_most: int) -> None:
    """Transfers of the client's labels, table, the server's labels, and the masked output."""
    activation, count, bits = Activation(modulus, shift, 0, 255, ignored), CHUNK, modulus_bits(modulus)
    transfers = extension_bytes(activation.circuit.evaluator_bits * count, DEFAULT_TREE_BITS)
    tables = sum(table_bytes(activation.circuit, (modulus,), count))
    labels = LABEL_BYTES * activation.circuit.garbler_bits * count
    assert (transfers + tables + labels + bits * count / 8) / count <= at_most


@pytest.mark.parametrize("modulus", [300, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 32])
def test_ciphertexts_of_every_width_survive_packing(modulus: int) -> None:
    setting = Setting(one_gate(0, 0, 0), 21)
    x, y = np.arange(21) % 2, np.arange(21) // 2 % 2
    garbled = setting.garble(modulus, "numpy")
    np.testing.assert_array_equal(setting.evaluate(garbled, x, y, modulus, "numpy"), x & y)
    whole, odd = divmod(modulus_bits(modulus), 8)
    assert garbled.tables[0].size == SEED_BYTES + 21 * 32 + 21 * whole + 3 * odd


@pytest.mark.parametrize("backend", BACKENDS)
def test_streamed_chunks_are_the_garbling_and_its_labels_come_from_a_seed(backend: str) -> None:
    circuit, count, modulus = one_gate(0, 0, 0), CHUNK + 5, 17
    garbled = Setting(circuit, count).garble(modulus, backend)
    again = Setting(circuit, count)
    label_seed = again.random.random_bytes(32).tobytes()
    assert label_seed == garbled.label_seed
    zero = zero_labels(label_seed, 1, count)
    np.testing.assert_array_equal(zero, garbled.garbler_zero)
    stream = garble_chunks(circuit, count, again.delta, zero, again.evaluator_zero, (modulus,), again.random, backend)
    for chunk, table, instances in zip(stream, garbled.tables, chunks(count), strict=True):
        assert chunk.instances == instances
        np.testing.assert_array_equal(chunk.table, table)
        np.testing.assert_array_equal(chunk.output_masks, garbled.output_masks[:, instances])


@pytest.mark.parametrize("backend", BACKENDS)
def test_tables_may_be_bytes_at_odd_addresses(backend: str) -> None:
    setting = Setting(one_gate(0, 0, 0), 40)
    x, y = np.arange(40, dtype=np.uint64) % 2, np.arange(40, dtype=np.uint64) // 2 % 2
    garbled = setting.garble(13, backend)
    labels = encode(garbled.garbler_zero, setting.delta, x), encode(setting.evaluator_zero, setting.delta, y)
    moved = memoryview(b"?" + garbled.tables[0].tobytes())[1:]
    outputs = [evaluate(setting.circuit, 40, [table], *labels, (13,), backend) for table in (garbled.tables[0], moved)]
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_label_or_table_yields_garbage(backend: str) -> None:
    count, modulus = 2000, 114689
    circuit = Activation(modulus, 6, 0, 255).circuit
    setting = Setting(circuit, count)
    shares = np.arange(count, dtype=np.uint64) * np.uint64(57)
    garbled = setting.garble(modulus, backend)
    right = setting.evaluate(garbled, shares, shares, modulus, backend)
    assert int(right.max()) <= 255
    setting.evaluator_zero = setting.evaluator_zero.copy()
    setting.evaluator_zero[3, :, 1] ^= np.uint64(1 << 40)
    wrong = setting.evaluate(garbled, shares, shares, modulus, backend)
    assert np.count_nonzero(wrong <= 255) < count / 50  # by chance 256 / 114689 of them


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_inputs_of_a_gate_do_not_give_the_offset_away(backend: str) -> None:
    """No circuit has an AND gate whose inputs are one value; made by hand, its two halves still hash it apart.

    Under one key for both halves the two ciphertexts and the active label add up to the offset, or to nothing.
    """
    gates = np.array([[AND, 0, 1, 2]], np.int32)
    circuit, count = Circuit(1, 1, gates, np.array([[2, 0]], np.int32), (1,), 3), 64
    setting = Setting(circuit, count)
    zero = setting.evaluator_zero  # the garbler's input has the labels of the evaluator's
    (chunk,) = garble_chunks(circuit, count, setting.delta, zero, zero, (13,), setting.random, backend)
    values = np.arange(count, dtype=np.uint64) % np.uint64(2)
    active = encode(zero, setting.delta, values)[0]
    rows = chunk.table[SEED_BYTES : SEED_BYTES + 32 * count].copy().view(np.uint64).reshape(2, count, 2)
    sums = rows[0] ^ rows[1] ^ active
    assert not (sums == setting.delta).all(1).any() and sums.any(1).all()
    outputs = evaluate(circuit, count, [chunk.table], *[encode(zero, setting.delta, values)] * 2, (13,), backend)
    np.testing.assert_array_equal((outputs[0].astype(int) - chunk.output_masks[0].astype(int)) % 13, values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_projections_use_both_words_of_a_hash(backend: str) -> None:
    """Residues of words of extreme values, under the largest modulus."""
    module = load_kernels(backend)
    words = [0, 1, (1 << 32) - 1, 1 << 32, (1 << 63) + 12345, (1 << 64) - 1]
    for low, high in product(words, repeat=2):
        for p in (3, 114689, (1 << 32) - 5, 1 << 32):
            expected = ((high << 64 | low) * p) >> 128
            pair = np.array([low, high], np.uint64)
            got = (
                module._scale(pair, np.uint64(p))[0]
                if backend == "numpy"
                else (module._scale(pair[0], pair[1], np.uint64(p)))
            )
            assert int(got) == expected


def test_masks_are_uniform() -> None:
    count, modulus = 40_000, 11
    masks = Setting(one_gate(0, 0, 0), count).garble(modulus, BACKENDS[-1]).output_masks[0]
    frequencies = np.bincount(masks.astype(np.int64), minlength=modulus)
    expected = count / modulus
    assert len(frequencies) == modulus
    assert float(((frequencies - expected) ** 2 / expected).sum()) < 30  # chi square, 10 degrees: p = 0.001


def test_masks_of_two_moduli_know_nothing_of_each_other() -> None:
    """Every pair of masks modulo 5 and 7 occurs equally often, and so for one modulus taken twice."""
    count = 70_000
    for moduli in ((5, 7), (6, 6)):
        first, second = Setting(one_gate(0, 0, 0), count).garble_into(moduli, BACKENDS[-1]).output_masks
        pairs = np.bincount((first * np.uint64(moduli[1]) + second).astype(np.int64), minlength=moduli[0] * moduli[1])
        expected = count / len(pairs)
        assert float(((pairs - expected) ** 2 / expected).sum()) < 67  # chi square, 35 degrees: p = 0.001


def test_every_chunk_and_every_garbling_has_its_own_seed() -> None:
    setting = Setting(one_gate(0, 0, 0), 3 * CHUNK)
    tables = [table for _ in range(2) for table in setting.garble(13, BACKENDS[-1]).tables]
    assert len({table[:SEED_BYTES].tobytes() for table in tables}) == 6
    ones = np.unpackbits(np.concatenate([table[SEED_BYTES : SEED_BYTES + 32 * CHUNK] for table in tables])).mean()
    assert abs(float(ones) - 0.5) < 0.002  # 6.3 million bits: 10 standard deviations


def test_labels_encode_bits_of_numbers() -> None:
    random = SecureRandom(bytes(32))
    delta = random_delta(random)
    zero = random.words((3, 8, 2))
    labels = encode(zero, delta, np.arange(8, dtype=np.uint64))
    for bit, value in product(range(3), range(8)):
        expected = zero[bit, value] ^ (delta if value >> bit & 1 else np.zeros(2, np.uint64))
        np.testing.assert_array_equal(labels[bit, value], expected)
    assert int(delta[0]) & 1 == 1
    bits = offset_bits(delta).tolist()
    assert sum(bit << i for i, bit in enumerate(bits)) == as_int(delta)


def test_no_instances() -> None:
    setting = Setting(one_gate(0, 0, 0), 0)
    garbled = setting.garble(13, BACKENDS[-1])
    assert garbled.tables == [] and garbled.output_masks.size == 0
    nothing = np.empty(0, np.uint64)
    assert setting.evaluate(garbled, nothing, nothing, 13, BACKENDS[-1]).size == 0


def test_wrong_tables_labels_and_offsets_are_refused() -> None:
    setting = Setting(one_gate(0, 0, 0), 10)
    circuit, zero = setting.circuit, setting.evaluator_zero
    garbled = setting.garble(13, "numpy")
    table = garbled.tables[0]
    for wrong in ([table[:-1]], [table.tobytes() + b"?"], [b""], [], [table, table]):
        with pytest.raises(ValueError):
            evaluate(circuit, 10, wrong, garbled.garbler_zero, zero, (13,), "numpy")
    too_large = table.copy()
    too_large[SEED_BYTES + 320 :] = 255
    with pytest.raises(ValueError, match="expected below 13"):
        evaluate(circuit, 10, [too_large], garbled.garbler_zero, zero, (13,), "numpy")
    with pytest.raises(ValueError, match="evaluator's labels: expected uint64"):
        evaluate(circuit, 10, [table], garbled.garbler_zero, zero[:, :9], (13,), "numpy")
    with pytest.raises(ValueError, match="lowest bit set"):
        garble(circuit, 10, setting.delta ^ np.uint64(1), zero, (13,), setting.random, "numpy")
    for moduli, message in (((13, 1), "modulus 1: expected 2"), (((1 << 32) + 1,), "to 2.32"), ((), "at least one")):
        with pytest.raises(ValueError, match=message):
            garble(circuit, 10, setting.delta, zero, moduli, setting.random, "numpy")


def test_backend_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "numpy")
    assert kernels.default_backend() == "numpy"
    monkeypatch.delenv(BACKEND_VARIABLE)
    assert kernels.default_backend() == BACKENDS[-1]
    monkeypatch.setenv(BACKEND_VARIABLE, "fortran")
    with pytest.raises(UserError, match="fortran: expected one of numba, numpy"):
        kernels.default_backend()


def test_numpy_serves_where_the_processor_lacks_aes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "numba_supported", lambda: False)
    monkeypatch.setenv(BACKEND_VARIABLE, "numba")
    assert kernels.default_backend() == "numpy"
