"""Garbles a circuit over many instances with half-gates: 32 bytes an AND gate, then residues modulo p as outputs.

Instances are garbled in chunks, gate by gate. A chunk's table stands by itself: a fresh public seed, two ciphertexts an
AND gate, one of k bits an output bit. Labels hash with H(x) = E(sigma(x)) ^ sigma(x), sigma(l, r) = (l ^ r, l) (Guo,
Katz, Wang, Yu, "Efficient and secure multiparty computation from fixed-key block ciphers", IEEE S&P 2020). E is AES
under keys derived from the seed, one for each gate of each chunk, so that no key serves two gates (as in Guo, Katz,
Wang, Weng, Yu, "Better concrete security for half-gates garbling", CRYPTO 2020).

Outputs are projected (Ball, Malkin, Rosulek, CCS 2016): the evaluator gets y + mask modulo p, the garbler
knows the mask. An output bit of weight 2^i has, for its two labels, residues that differ by 2^i: the hash of the label
of colour 0 is one, a ciphertext brings the hash of the other label there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.kernels import load_kernels
from autoprivacy.gc.labels import LABEL_BYTES, check_labels, read_only, zero_labels
from autoprivacy.secure_random import KEY_BYTES, SecureRandom

# Instances of one key and one table: a wire's labels of a chunk, 64 KiB, fit in the second-level cache.
CHUNK = 4096
SEED_BYTES = 16
MAXIMUM_MODULUS = 1 << 32
Table = bytes | bytearray | memoryview | np.ndarray


@dataclass(frozen=True, eq=False)
class GarbledChunk:
    """What garbling yields for one chunk.

    Attributes:
        instances: which ones.
        table: uint8, for the evaluator.
        output_mask: uint64 [instances], modulo p, the garbler's alone.
    """

    instances: slice
    table: np.ndarray
    output_mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Garbled:
    """A circuit garbled for all its instances.

    Attributes:
        tables: one a chunk, for the evaluator.
        label_seed: 32 bytes, the garbler's alone; `zero_labels(label_seed, garbler_bits, count)` are its input labels.
        garbler_zero: those labels, uint64 [garbler_bits, count, 2].
        output_mask: uint64 [count], modulo p, the garbler's alone.
    """

    tables: list[np.ndarray]
    label_seed: bytes
    garbler_zero: np.ndarray
    output_mask: np.ndarray


def chunks(count: int) -> list[slice]:
    """The instances of every chunk, in order."""
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def table_bytes(circuit: Circuit, modulus: int, count: int) -> list[int]:
    """The size of every chunk's table."""
    return [_layout(circuit, modulus, chunk.stop - chunk.start)[-1] for chunk in chunks(count)]


def garble(
    circuit: Circuit,
    count: int,
    delta: np.ndarray,
    evaluator_zero: np.ndarray,
    modulus: int,
    random: SecureRandom,
    backend: str | None = None,
) -> Garbled:
    """Garble `count` instances at once; arguments as in `garble_chunks`."""
    seed = random.random_bytes(KEY_BYTES).tobytes()
    garbler_zero = zero_labels(seed, circuit.garbler_bits, count)
    garbled = list(garble_chunks(circuit, count, delta, garbler_zero, evaluator_zero, modulus, random, backend))
    masks = [chunk.output_mask for chunk in garbled]
    output_mask = np.concatenate(masks) if masks else np.empty(0, np.uint64)
    return Garbled([chunk.table for chunk in garbled], seed, garbler_zero, output_mask)


def garble_chunks(
    circuit: Circuit,
    count: int,
    delta: np.ndarray,
    garbler_zero: np.ndarray,
    evaluator_zero: np.ndarray,
    modulus: int,
    random: SecureRandom,
    backend: str | None = None,
) -> Iterator[GarbledChunk]:
    """Garble chunk by chunk, so that tables can be sent while the next is made.

    Args:
        circuit: its outputs are the bits of a number below p, least significant first.
        count: number of instances.
        delta: the offset, uint64 [2], lowest bit 1.
        garbler_zero, evaluator_zero: labels of value 0 of the inputs, uint64 [garbler_bits, count, 2] and
            [evaluator_bits, count, 2]; fresh for every instance.
        modulus: p, the evaluator's outputs are modulo p; at most 2^32.
        random: draws the tables' seeds.
        backend: "numba" or "numpy", the same bits; None takes the faster one that this machine has.

    Raises:
        ValueError: delta, labels or modulus are not of that form.
    """
    garbler_zero = check_labels("garbler's zero", garbler_zero, circuit.garbler_bits, count)
    evaluator_zero = check_labels("evaluator's zero", evaluator_zero, circuit.evaluator_bits, count)
    if delta.shape != (2,) or delta.dtype != np.uint64 or not int(delta[0]) & 1:
        raise ValueError("delta: expected two uint64 words with the lowest bit set")
    _check_modulus(circuit, modulus)
    delta = read_only(delta)
    kernels = load_kernels(backend)
    workspace = None
    for chunk in chunks(count):
        size = chunk.stop - chunk.start
        if workspace is None or workspace.size != size:
            workspace = kernels.Workspace(circuit, size)
        table, ands, packed = _empty_table(circuit, modulus, size)
        table[:SEED_BYTES] = random.random_bytes(SEED_BYTES)
        keys = gate_keys(circuit, table[:SEED_BYTES])
        ciphertexts = np.empty((circuit.output_bits, size), np.uint32)
        mask = np.empty(size, np.uint64)
        wires = (garbler_zero, evaluator_zero, chunk.start)
        kernels.garble(workspace, circuit, keys, delta, *wires, modulus, ands, ciphertexts, mask)
        packed[:] = _pack(ciphertexts.reshape(-1), modulus)
        yield GarbledChunk(chunk, table, mask % np.uint64(modulus))


def evaluate(
    circuit: Circuit,
    count: int,
    tables: Iterable[Table],
    garbler_labels: np.ndarray,
    evaluator_labels: np.ndarray,
    modulus: int,
    backend: str | None = None,
) -> np.ndarray:
    """The masked outputs of `count` instances, uint64 [count]: y + mask modulo p.

    Args:
        tables: exactly one a chunk, bytes or uint8; read one after the other, so a generator may receive them.
        garbler_labels, evaluator_labels: uint64 [garbler_bits, count, 2] and [evaluator_bits, count, 2].
        Others as in `garble_chunks`.

    Raises:
        ValueError: a table has the wrong length, one is missing, or the labels' shape is wrong.
    """
    garbler_labels = check_labels("garbler's", garbler_labels, circuit.garbler_bits, count)
    evaluator_labels = check_labels("evaluator's", evaluator_labels, circuit.evaluator_bits, count)
    _check_modulus(circuit, modulus)
    kernels = load_kernels(backend)
    outputs = np.empty(count, np.uint64)
    workspace = None
    for chunk, table in zip(chunks(count), tables, strict=True):
        size = chunk.stop - chunk.start
        if workspace is None or workspace.size != size:
            workspace = kernels.Workspace(circuit, size)
        seed, ands, ciphertexts = _read_table(circuit, modulus, size, table)
        wires = (garbler_labels, evaluator_labels, chunk.start)
        kernels.evaluate(
            workspace, circuit, gate_keys(circuit, seed), *wires, modulus, ands, ciphertexts, outputs[chunk]
        )
    return outputs % np.uint64(modulus)


def gate_keys(circuit: Circuit, seed: np.ndarray) -> np.ndarray:
    """AES keys of a chunk, uint8 [AND gates + outputs, 16]: the counters 0, 1, .. encrypted under the chunk's seed."""
    counters = np.zeros((circuit.and_count + circuit.output_bits, 2), "<u8")
    counters[:, 0] = np.arange(len(counters))
    encryptor = Cipher(algorithms.AES(seed.tobytes()), modes.ECB()).encryptor()
    return np.frombuffer(encryptor.update(counters.tobytes()), np.uint8).reshape(-1, LABEL_BYTES)


def _check_modulus(circuit: Circuit, modulus: int) -> None:
    if not 1 << circuit.output_bits <= modulus <= MAXIMUM_MODULUS:
        raise ValueError(f"modulus {modulus}: expected 2^{circuit.output_bits} (the outputs' range) to 2^32")


def _layout(circuit: Circuit, modulus: int, size: int) -> tuple[int, int]:
    """Where the output ciphertexts of a chunk's table begin, and where the table ends."""
    ciphertexts = SEED_BYTES + circuit.and_count * 2 * LABEL_BYTES * size
    return ciphertexts, ciphertexts + _packed_bytes(circuit.output_bits * size, modulus)


def _empty_table(circuit: Circuit, modulus: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table with views of its AND gates, uint64 [gates, 2, size, 2], and of its packed output ciphertexts."""
    middle, end = _layout(circuit, modulus, size)
    table = np.empty(end, np.uint8)
    ands = table[SEED_BYTES:middle].view(np.uint64).reshape(circuit.and_count, 2, size, 2)
    return table, ands, table[middle:]


def _read_table(circuit: Circuit, modulus: int, size: int, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A received table's seed, AND gates uint64 [gates, 2, size, 2] and output ciphertexts uint32 [outputs, size]."""
    data = np.frombuffer(table, np.uint8)
    middle, end = _layout(circuit, modulus, size)
    if data.size != end:
        raise ValueError(f"garbled table of {size} instances: expected {end} bytes, got {data.size}")
    ands = read_only(data[SEED_BYTES:middle].view(np.uint64))
    ciphertexts = _unpack(data[middle:], circuit.output_bits * size, modulus)
    if ciphertexts.size and int(ciphertexts.max()) >= modulus:
        raise ValueError(f"garbled table: an output ciphertext of {ciphertexts.max()}; expected below {modulus}")
    return data[:SEED_BYTES], ands.reshape(circuit.and_count, 2, size, 2), ciphertexts.reshape(-1, size)


def _packed_bytes(count: int, modulus: int) -> int:
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    return whole * count + odd * (-(-count // 8))


def _pack(residues: np.ndarray, modulus: int) -> np.ndarray:
    """Residues, uint32 [count], in as many bits as they need: whole bytes first, byte by byte, then bit by bit."""
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    planes = np.ascontiguousarray(residues.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4).T)
    rest = [np.packbits(planes[whole] >> bit & 1, bitorder="little") for bit in range(odd)]
    return np.concatenate([planes[:whole].reshape(-1), *rest])


def _unpack(data: np.ndarray, count: int, modulus: int) -> np.ndarray:
    """Undoes `_pack`."""
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    planes = np.zeros((4, count), np.uint8)
    planes[:whole] = data[: whole * count].reshape(whole, count)
    for bit, packed in enumerate(data[whole * count :].reshape(odd, -1) if odd else ()):
        planes[whole] |= np.unpackbits(packed, count=count, bitorder="little") << np.uint8(bit)
    return np.ascontiguousarray(planes.T).view("<u4").reshape(count).astype(np.uint32, copy=False)
