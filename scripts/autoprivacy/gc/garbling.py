"""Garbles a circuit over many instances with half-gates: 32 bytes an AND gate, then residues modulo some p as outputs.

Instances are garbled in chunks, gate by gate. A chunk's table stands by itself: a fresh public seed, two ciphertexts an
AND gate, then for each modulus one of k bits an output bit. Labels hash with H(x) = E(sigma(x)) ^ sigma(x),
sigma(l, r) = (l ^ r, l) (Guo, Katz, Wang, Yu, "Efficient and secure multiparty computation from fixed-key block
ciphers", IEEE S&P 2020). E is AES under keys derived from the seed, one for each half of each gate of each chunk, so
that no key serves two halves, which may hash equal labels (as in Guo, Katz, Wang, Weng, Yu, "Better concrete security
for half-gates garbling", CRYPTO 2020, whose tweaks are two a gate).

Outputs are projected (Ball, Malkin, Rosulek, CCS 2016): the evaluator gets y + mask modulo p, the garbler
knows the mask. An output bit of weight w (2^i, or less than 0 for a sign) has, for its two labels, residues that differ
by w: the hash of the label of colour 0 is one, a ciphertext brings the hash of the other label there. A number may be
projected into several moduli, with a key for every bit and modulus, hence with masks that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from autoprivacy.gc.circuit import Circuit
from autoprivacy.gc.garbling_kernels import load_kernels
from autoprivacy.gc.projection import Projection
from autoprivacy.ot.labels import LABEL_BYTES, check_labels, read_only, zero_labels
from autoprivacy.randomness.generator import KEY_BYTES, SecureRandom

# Instances of one key and one table: a wire's labels of a chunk, 64 KiB, fit in the second-level cache.
CHUNK = 4096
SEED_BYTES = 16
Table = bytes | bytearray | memoryview | np.ndarray


@dataclass(frozen=True, eq=False)
class GarbledChunk:
    """What garbling yields for one chunk.

    Attributes:
        instances: which ones.
        table: uint8, for the evaluator.
        output_masks: uint64 [moduli, instances], each modulo its p, the garbler's alone.
    """

    instances: slice
    table: np.ndarray
    output_masks: np.ndarray


@dataclass(frozen=True, eq=False)
class Garbled:
    """A circuit garbled for all its instances.

    Attributes:
        tables: one a chunk, for the evaluator.
        label_seed: 32 bytes, the garbler's alone; `zero_labels(label_seed, garbler_bits, count)` are its input labels.
        garbler_zero: those labels, uint64 [garbler_bits, count, 2].
        output_masks: uint64 [moduli, count], each modulo its p, the garbler's alone.
    """

    tables: list[np.ndarray]
    label_seed: bytes
    garbler_zero: np.ndarray
    output_masks: np.ndarray


def chunks(count: int) -> list[slice]:
    """The instances of every chunk, in order."""
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def table_bytes(circuit: Circuit, moduli: Sequence[int], count: int) -> list[int]:
    """The size of every chunk's table."""
    return [_layout(circuit, moduli, chunk.stop - chunk.start)[-1] for chunk in chunks(count)]


def garble(
    circuit: Circuit,
    count: int,
    delta: np.ndarray,
    evaluator_zero: np.ndarray,
    moduli: Sequence[int],
    random: SecureRandom,
    backend: str | None = None,
) -> Garbled:
    """Garble `count` instances at once; arguments as in `garble_chunks`."""
    seed = random.random_bytes(KEY_BYTES).tobytes()
    garbler_zero = zero_labels(seed, circuit.garbler_bits, count)
    garbled = list(garble_chunks(circuit, count, delta, garbler_zero, evaluator_zero, moduli, random, backend))
    masks = np.concatenate([np.empty((len(moduli), 0), np.uint64), *(chunk.output_masks for chunk in garbled)], 1)
    return Garbled([chunk.table for chunk in garbled], seed, garbler_zero, masks)


def garble_chunks(
    circuit: Circuit,
    count: int,
    delta: np.ndarray,
    garbler_zero: np.ndarray,
    evaluator_zero: np.ndarray,
    moduli: Sequence[int],
    random: SecureRandom,
    backend: str | None = None,
) -> Iterator[GarbledChunk]:
    """Garble chunk by chunk, so that tables can be sent while the next is made.

    Args:
        circuit: its outputs are the bits of a number, least significant first.
        count: number of instances.
        delta: the offset, uint64 [2], lowest bit 1.
        garbler_zero, evaluator_zero: labels of value 0 of the inputs, uint64 [garbler_bits, count, 2] and
            [evaluator_bits, count, 2]; fresh for every instance.
        moduli: the evaluator gets its outputs modulo each of these; at most 2^32.
        random: draws the tables' seeds.
        backend: "numba" or "numpy", the same bits; None takes the faster one that this machine has.

    Raises:
        ValueError: delta, labels or moduli are not of that form.
    """
    garbler_zero = check_labels("garbler's zero", garbler_zero, circuit.garbler_bits, count)
    evaluator_zero = check_labels("evaluator's zero", evaluator_zero, circuit.evaluator_bits, count)
    if delta.shape != (2,) or delta.dtype != np.uint64 or not int(delta[0]) & 1:
        raise ValueError("delta: expected two uint64 words with the lowest bit set")
    projection = Projection.of(circuit, moduli)
    delta = read_only(delta)
    kernels = load_kernels(backend)
    workspace = None
    for chunk in chunks(count):
        size = chunk.stop - chunk.start
        if workspace is None or workspace.size != size:
            workspace = kernels.Workspace(circuit, size)
        table, ands, packed = _empty_table(circuit, moduli, size)
        table[:SEED_BYTES] = random.random_bytes(SEED_BYTES)
        keys = gate_keys(circuit, len(moduli), table[:SEED_BYTES])
        ciphertexts = np.empty((len(moduli), circuit.output_bits, size), np.uint32)
        masks = np.empty((len(moduli), size), np.uint64)
        wires = (garbler_zero, evaluator_zero, chunk.start)
        kernels.garble(workspace, circuit, keys, delta, *wires, projection, ands, ciphertexts, masks)
        packed[:] = np.concatenate([_pack(c.reshape(-1), p) for c, p in zip(ciphertexts, moduli, strict=True)])
        yield GarbledChunk(chunk, table, masks % projection.moduli[:, None])


def evaluate(
    circuit: Circuit,
    count: int,
    tables: Iterable[Table],
    garbler_labels: np.ndarray,
    evaluator_labels: np.ndarray,
    moduli: Sequence[int],
    backend: str | None = None,
) -> np.ndarray:
    """The masked outputs of `count` instances, uint64 [moduli, count]: y + mask modulo each p.

    Args:
        tables: exactly one a chunk, bytes or uint8; read one after the other, so a generator may receive them.
        garbler_labels, evaluator_labels: uint64 [garbler_bits, count, 2] and [evaluator_bits, count, 2].
        Others as in `garble_chunks`.

    Raises:
        ValueError: a table has the wrong length, one is missing, or the labels' shape is wrong.
    """
    garbler_labels = check_labels("garbler's", garbler_labels, circuit.garbler_bits, count)
    evaluator_labels = check_labels("evaluator's", evaluator_labels, circuit.evaluator_bits, count)
    projection = Projection.of(circuit, moduli)
    kernels = load_kernels(backend)
    outputs = np.empty((len(moduli), count), np.uint64)
    workspace = None
    for chunk, table in zip(chunks(count), tables, strict=True):
        size = chunk.stop - chunk.start
        if workspace is None or workspace.size != size:
            workspace = kernels.Workspace(circuit, size)
        seed, ands, ciphertexts = _read_table(circuit, moduli, size, table)
        keys = gate_keys(circuit, len(moduli), seed)
        wires = (garbler_labels, evaluator_labels, chunk.start)
        masked = np.empty((len(moduli), size), np.uint64)
        kernels.evaluate(workspace, circuit, keys, *wires, projection, ands, ciphertexts, masked)
        outputs[:, chunk] = masked % projection.moduli[:, None]
    return outputs


def gate_keys(circuit: Circuit, moduli: int, seed: np.ndarray) -> np.ndarray:
    """AES keys of a chunk, uint8 [2 * AND gates + moduli * outputs, 16]: counters from 0 on, encrypted under its seed.

    Every AND gate has one for the garbler's half, then one for the evaluator's.
    """
    counters = np.zeros((2 * circuit.and_count + moduli * circuit.output_bits, 2), "<u8")
    counters[:, 0] = np.arange(len(counters))
    encryptor = Cipher(algorithms.AES(seed.tobytes()), modes.ECB()).encryptor()
    return np.frombuffer(encryptor.update(counters.tobytes()), np.uint8).reshape(-1, LABEL_BYTES)


def _layout(circuit: Circuit, moduli: Sequence[int], size: int) -> list[int]:
    """Where the output ciphertexts of a chunk's table begin, modulus by modulus, and where the table ends."""
    ends = [SEED_BYTES + circuit.and_count * 2 * LABEL_BYTES * size]
    for modulus in moduli:
        ends.append(ends[-1] + _packed_bytes(circuit.output_bits * size, modulus))
    return ends


def _empty_table(circuit: Circuit, moduli: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table with views of its AND gates, uint64 [gates, 2, size, 2], and of its packed output ciphertexts."""
    middle, *_, end = _layout(circuit, moduli, size)
    table = np.empty(end, np.uint8)
    ands = table[SEED_BYTES:middle].view(np.uint64).reshape(circuit.and_count, 2, size, 2)
    return table, ands, table[middle:]


def _read_table(
    circuit: Circuit, moduli: Sequence[int], size: int, table: Table
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A received table's seed, AND gates uint64 [gates, 2, size, 2], and outputs uint32 [moduli, outputs, size]."""
    data = np.frombuffer(table, np.uint8)
    ends = _layout(circuit, moduli, size)
    if data.size != ends[-1]:
        raise ValueError(f"garbled table of {size} instances: expected {ends[-1]} bytes, got {data.size}")
    ands = read_only(data[SEED_BYTES : ends[0]].view(np.uint64))
    ciphertexts = np.empty((len(moduli), circuit.output_bits, size), np.uint32)
    for index, modulus in enumerate(moduli):
        values = _unpack(data[ends[index] : ends[index + 1]], circuit.output_bits * size, modulus)
        if values.size and int(values.max()) >= modulus:
            raise ValueError(f"garbled table: an output ciphertext of {values.max()}; expected below {modulus}")
        ciphertexts[index] = values.reshape(-1, size)
    return data[:SEED_BYTES], ands.reshape(circuit.and_count, 2, size, 2), ciphertexts


def _packed_bytes(count: int, modulus: int) -> int:
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    return whole * count + odd * (-(-count // 8))


def _pack(residues: np.ndarray, modulus: int) -> np.ndarray:
    """Residues, uint32 [count], in as many bits as they need: whole bytes first, byte by byte, then bit by bit."""
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    parts = [(residues >> np.uint32(8 * byte)).astype(np.uint8) for byte in range(whole)]
    if odd:
        rest = (residues >> np.uint32(8 * whole)).astype(np.uint8)
        parts += [np.packbits(rest & np.uint8(1 << bit), bitorder="little") for bit in range(odd)]
    return np.concatenate(parts)


def _unpack(data: np.ndarray, count: int, modulus: int) -> np.ndarray:
    """Undoes `_pack`."""
    whole, odd = divmod((modulus - 1).bit_length(), 8)
    residues = np.zeros(count, np.uint32)
    for byte in range(whole):
        residues |= data[byte * count : (byte + 1) * count].astype(np.uint32) << np.uint32(8 * byte)
    if odd:
        rest = np.zeros(count, np.uint8)
        for bit, packed in enumerate(data[whole * count :].reshape(odd, -1)):
            rest |= np.unpackbits(packed, count=count, bitorder="little") << np.uint8(bit)
        residues |= rest.astype(np.uint32) << np.uint32(8 * whole)
    return residues
