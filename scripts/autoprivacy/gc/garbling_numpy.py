"""Garbling kernels in numpy and the cryptography package's AES. Same functions and bits as `garbling_numba`.

A wire's labels of a chunk are one flat uint64 array, two words an instance. Temporaries live in a workspace:
fresh memory costs more than the arithmetic.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from autoprivacy.gc.circuit import LEFT_INVERTED, RIGHT_INVERTED, XOR, Circuit
from autoprivacy.gc.projection import Projection

ONE = np.uint64(1)
HALF = np.uint64(32)
LOW_HALF = np.uint64((1 << 32) - 1)


class Workspace:
    """Memory for the temporaries of one chunk after the other, all of the same size."""

    def __init__(self, circuit: Circuit, size: int) -> None:
        self.size = size
        self.wires = np.empty((circuit.slot_count, 2 * size), np.uint64)
        self.spare = np.empty((3, 2 * size), np.uint64)
        # For two wires with two labels each; update_into wants room for one more block, less a byte.
        self.blocks = np.empty((4, 2 * size), np.uint64)
        self.hashes = np.empty(self.blocks.size + 2, np.uint64)


class _Hash:
    """H(x) = E(sigma(x)) ^ sigma(x) over a chunk, for up to two wires and their two labels each."""

    def __init__(self, workspace: Workspace, offset: np.ndarray | None) -> None:
        self._workspace = workspace
        self._offset = None
        if offset is not None:
            self._offset = np.tile(np.array([offset[0] ^ offset[1], offset[0]], np.uint64), workspace.size)

    def __call__(self, keys: np.ndarray, wires: list[np.ndarray]) -> np.ndarray:
        """H of every wire's labels, each followed by H of the label ^ offset where there is an offset: [.., 2 size].

        Every wire has a key of its own, uint8 [wires, 16].
        """
        blocks = self._workspace.blocks
        row = 0
        for wire in wires:
            np.bitwise_xor(wire[::2], wire[1::2], out=blocks[row, ::2])
            blocks[row, 1::2] = wire[::2]
            row += 1
            if self._offset is not None:
                np.bitwise_xor(blocks[row - 1], self._offset, out=blocks[row])
                row += 1
        blocks = blocks[:row]
        hashes = self._workspace.hashes[: blocks.size].reshape(blocks.shape)
        own = row // len(wires)
        for start, key in zip(range(0, row, own), keys, strict=True):
            encryptor = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor()
            room = self._workspace.hashes[start * blocks.shape[1] :].view(np.uint8)
            encryptor.update_into(blocks[start : start + own].view(np.uint8).reshape(-1).data, room.data)
        np.bitwise_xor(hashes, blocks, out=hashes)
        return hashes


def garble(
    workspace: Workspace,
    circuit: Circuit,
    keys: np.ndarray,
    delta: np.ndarray,
    garbler_zero: np.ndarray,
    evaluator_zero: np.ndarray,
    start: int,
    projection: Projection,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    masks: np.ndarray,
) -> None:
    """Garble one chunk.

    Args:
        workspace: made for this circuit and the chunk's size.
        keys: uint8 [2 * AND gates + moduli * outputs, 16].
        delta: the offset, uint64 [2].
        garbler_zero, evaluator_zero: labels of value 0 of all instances, uint64 [bits, count, 2].
        start: the chunk's first instance.
        projection: the moduli and weights of the outputs.
        ands: receives the two ciphertexts of the AND gates, uint64 [AND gates, 2, size, 2].
        ciphertexts: receives the outputs', uint32 [moduli, outputs, size].
        masks: receives the sums of the outputs' masks, uint64 [moduli, size], not reduced.
    """
    hash_labels = _Hash(workspace, delta)
    offset = np.tile(delta, workspace.size)
    spare, buffers = workspace.spare, workspace.wires
    wires = _input_wires(circuit, (garbler_zero, evaluator_zero), start, workspace.size)
    gate, key = 0, 0
    for operation, left, right, out in circuit.gates.tolist():
        if operation == XOR:
            np.bitwise_xor(wires[left], wires[right], out=buffers[out])
        else:
            x, y = wires[left], wires[right]
            if operation & LEFT_INVERTED:
                x = np.bitwise_xor(x, offset, out=spare[0])
            if operation & RIGHT_INVERTED:
                y = np.bitwise_xor(y, offset, out=spare[1])
            hashes = hash_labels(keys[key : key + 2], [x, y])
            _garble_and(hashes, x, y, offset, ands[gate].reshape(2, -1), buffers[out], spare[2])
            gate, key = gate + 1, key + 2
        wires[out] = buffers[out]
    masks[:] = 0
    for j, modulus in enumerate(projection.moduli):
        for i, (slot, inverted) in enumerate(circuit.outputs.tolist()):
            zero = np.bitwise_xor(wires[slot], offset, out=spare[0]) if inverted else wires[slot]
            hashes = hash_labels(keys[key : key + 1], [zero])
            key += 1
            _garble_output(hashes, zero[::2] & ONE, projection.weights[j, i], modulus, ciphertexts[j, i], masks[j])


def _garble_and(
    hashes: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    offset: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
    spare: np.ndarray,
) -> None:
    """The two half-gates of x AND y (Zahur, Rosulek, Evans, EUROCRYPT 2015, figure 2)."""
    generator, generator_sum, evaluator, evaluator_sum = hashes
    np.bitwise_xor(generator_sum, generator, out=generator_sum)
    np.bitwise_xor(evaluator_sum, evaluator, out=evaluator_sum)
    chosen = _colour_mask(y, spare)
    np.bitwise_and(chosen, offset, out=out)
    np.bitwise_xor(generator_sum, out, out=table[0])
    np.bitwise_xor(evaluator_sum, x, out=table[1])
    np.bitwise_and(chosen, evaluator_sum, out=out)
    np.bitwise_xor(out, evaluator, out=out)
    np.bitwise_xor(out, generator, out=out)
    chosen = _colour_mask(x, spare)
    np.bitwise_and(chosen, table[0], out=chosen)
    np.bitwise_xor(out, chosen, out=out)


def _garble_output(
    hashes: np.ndarray, colour: np.ndarray, weight: np.uint64, p: np.uint64, ciphertext: np.ndarray, mask: np.ndarray
) -> None:
    """One output bit's ciphertext and its part of the mask; `colour` is that of the label of value 0."""
    of_zero, of_one = (_scale(words, p) for words in hashes)
    # What the hash of the label of value 1 lacks. The other one's lack is its negative; colour 0 is to lack nothing.
    lack = _reduce(_reduce(of_zero + (p - of_one), p) + weight, p)
    mask += of_zero + colour * (p - lack)
    ciphertext[:] = _reduce(lack + colour * (p - lack - lack), p)


def evaluate(
    workspace: Workspace,
    circuit: Circuit,
    keys: np.ndarray,
    garbler_labels: np.ndarray,
    evaluator_labels: np.ndarray,
    start: int,
    projection: Projection,
    ands: np.ndarray,
    ciphertexts: np.ndarray,
    outputs: np.ndarray,
) -> None:
    """Evaluate one chunk; `outputs` receives y + mask, uint64 [moduli, size], not reduced. Others as in `garble`."""
    hash_labels = _Hash(workspace, None)
    spare, buffers = workspace.spare[0], workspace.wires
    wires = _input_wires(circuit, (garbler_labels, evaluator_labels), start, workspace.size)
    gate, key = 0, 0
    for operation, left, right, out in circuit.gates.tolist():
        if operation == XOR:
            np.bitwise_xor(wires[left], wires[right], out=buffers[out])
        else:
            x, y = wires[left], wires[right]
            hashes = hash_labels(keys[key : key + 2], [x, y])
            _evaluate_and(hashes, x, y, ands[gate].reshape(2, -1), buffers[out], spare)
            gate, key = gate + 1, key + 2
        wires[out] = buffers[out]
    outputs[:] = 0
    for j, modulus in enumerate(projection.moduli):
        for i, (slot, _) in enumerate(circuit.outputs.tolist()):
            label = wires[slot]
            outputs[j] += _scale(hash_labels(keys[key : key + 1], [label])[0], modulus)
            outputs[j] += (label[::2] & ONE) * ciphertexts[j, i]
            key += 1


def _evaluate_and(
    hashes: np.ndarray, x: np.ndarray, y: np.ndarray, table: np.ndarray, out: np.ndarray, spare: np.ndarray
) -> None:
    np.bitwise_xor(table[1], x, out=out)
    np.bitwise_and(out, _colour_mask(y, spare), out=out)
    np.bitwise_xor(out, hashes[0], out=out)
    np.bitwise_xor(out, hashes[1], out=out)
    chosen = _colour_mask(x, spare)
    np.bitwise_and(chosen, table[0], out=chosen)
    np.bitwise_xor(out, chosen, out=out)


def _input_wires(circuit: Circuit, inputs: tuple[np.ndarray, np.ndarray], start: int, size: int) -> list[np.ndarray]:
    """The labels in every slot: views of the inputs, and nothing in the slots that gates will fill."""
    wires = [labels[start : start + size].reshape(-1) for party in inputs for labels in party]
    return wires + [np.empty(0, np.uint64)] * (circuit.slot_count - len(wires))


def _colour_mask(labels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Both words all ones where the label's colour is 1, else zero."""
    words = -(labels[::2] & ONE)
    out[::2] = words
    out[1::2] = words
    return out


def _scale(words: np.ndarray, modulus: np.uint64) -> np.ndarray:
    """floor(x p / 2^128) for x of two words: uniform to residues, at most p / 2^128 off uniform; p at most 2^32."""
    carry = np.zeros(len(words) // 2, np.uint64)
    for word in (words[::2], words[1::2]):
        carry = (word & LOW_HALF) * modulus + carry >> HALF
        carry = (word >> HALF) * modulus + carry >> HALF
    return carry


def _reduce(values: np.ndarray, modulus: np.uint64) -> np.ndarray:
    """Values below 2 p modulo p: of v and v - p, which wraps around where v < p, the smaller one."""
    return np.minimum(values, values - modulus)
