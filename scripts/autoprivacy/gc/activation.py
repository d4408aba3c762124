"""The circuit of an activation on additive shares modulo p: add, round, shift, clip.

The server garbles and the client evaluates. The client knows its share before the image is, so its oblivious transfers
are offline; the server's share arrives online as labels.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.gc.circuit import TRUE, Circuit, CircuitBuilder, Wire
from autoprivacy.quantization.integer_network import to_signed

MAXIMUM_MODULUS_BITS = 32  # garbled outputs are scaled into [0, p) by 32-bit halves


@lru_cache(maxsize=256)
def activation_circuit(modulus: int, shift: int, minimum: int, maximum: int) -> Circuit:
    """y = clip(to_signed(c + s mod p) >> shift, minimum, maximum), c and s as `evaluator_input` and `garbler_input`.

    For k-bit p and a clip that leaves h bits between the output's and the sign: k - 1 + h + (output bits) AND gates
    for p = 2^k, and k - m more for other moduli, 2^m being the largest divisor of p - 1 up to p - 2^(k-1).

    Args:
        modulus: p, 4 to 2^32.
        shift: f, 0 to k - 2.
        minimum: 0, a ReLU.
        maximum: 2^b - 1.

    Returns:
        A circuit of k input bits for each party; outputs are y's bits, least significant first.

    Raises:
        UserError: an argument is not one of these.
    """
    bits = modulus_bits(modulus)
    _check(modulus, bits, shift, minimum, maximum)
    builder = CircuitBuilder()
    server, client = builder.garbler_inputs(bits), builder.evaluator_inputs(bits)
    if modulus == 1 << bits:
        total, _ = builder.add(client, server)
    else:
        total = _add_modulo(builder, client, server, modulus)
    sign = total[-1]
    width = min(maximum.bit_length(), bits - 1 - shift)
    outside = sign
    for bit in total[shift + width : -1]:
        outside = builder.or_(outside, bit)
    clipped = builder.not_(sign)  # all bits of the maximum, or of zero
    return builder.build(
        [builder.xor(b, builder.and_(outside, builder.xor(b, clipped))) for b in total[shift : shift + width]]
    )


def garbler_input(share: np.ndarray, modulus: int, shift: int) -> np.ndarray:
    """The server's input: its share plus half a unit of the output, so that the shift rounds. uint64, same shape."""
    return (np.asarray(share, np.uint64) + np.uint64(_half(shift))) % np.uint64(modulus)


def evaluator_input(share: np.ndarray, modulus: int) -> np.ndarray:
    """The client's input: its share c for p = 2^k, else c - p + 2^k (see `_add_modulo`). uint64, same shape."""
    offset = (1 << modulus_bits(modulus)) - modulus
    return np.asarray(share, np.uint64) + np.uint64(offset)


def activation_reference(
    client_share: np.ndarray, server_share: np.ndarray, modulus: int, shift: int, minimum: int, maximum: int
) -> np.ndarray:
    """What the circuit computes, in integer arithmetic and from the shares before rounding; int64."""
    total = np.asarray(client_share, np.int64) + np.asarray(server_share, np.int64) + _half(shift)
    return np.clip(to_signed(total, modulus) >> shift, minimum, maximum)


def modulus_bits(modulus: int) -> int:
    """k: bits of a residue modulo p."""
    return (modulus - 1).bit_length()


def _half(shift: int) -> int:
    return 1 << (shift - 1) if shift else 0


def _check(modulus: int, bits: int, shift: int, minimum: int, maximum: int) -> None:
    if modulus < 4 or bits > MAXIMUM_MODULUS_BITS:
        raise UserError(f"activation: plaintext modulus {modulus}; expected 4 to 2^{MAXIMUM_MODULUS_BITS}")
    if not 0 <= shift <= bits - 2:
        raise UserError(f"activation: shift {shift}; expected 0 to {bits - 2} for plaintext modulus {modulus}")
    if minimum != 0 or maximum < 1 or maximum & (maximum + 1):
        raise UserError(f"activation: clip to [{minimum}, {maximum}]; supported: [0, 2^b - 1], a clipped ReLU")


def _add_modulo(builder: CircuitBuilder, client: list[Wire], server: list[Wire], modulus: int) -> list[Wire]:
    """The bits of x = c + s mod p, for the client's input c - p + 2^k; exact where x is not negative.

    Let p = C 2^m + 1, d = c - 1, and hi(), lo() split a number at bit m. Then x = d + s + 1 if that is below p, else
    x = d + s - C 2^m: subtracting p touches the upper part alone, and the lower part needs one adder whose carry in
    tells the two cases apart. The client's input is d - C 2^m + 2^k, so an adder on the upper parts, with a carry in
    of 1, gives u = hi(d) + hi(s) - (C - 1) and whether u >= 0.

    - u < 0: d + s + 1 < p. Carry in 1.
    - u > 0: d + s + 1 >= p. Carry in 0.
    - u = 0: d + s + 1 >= p exactly if lo(d) + lo(s) carries. If it does, carry in 0 is right. If not, x is one of the
      2^m residues under p, which are negative as m is chosen: any negative result will do.

    So with w = (u >= 0), carry in = not w, and hi(x) = u + carry + (-1 if w else C - 1). The case left over has
    u = 0 and no carry, hence hi(x) = -1: negative, as it must be.
    """
    low = _low_bits(modulus)
    top = ((modulus - 1) >> low) - 1  # C - 1
    upper, wraps = builder.add(client[low:], server[low:], TRUE)
    lower, carry = builder.add(client[:low], server[:low], builder.not_(wraps))
    # -1 has every bit set, so a bit of (-1 if w else C - 1) is 1 where C - 1 has it, else w.
    correction = [TRUE if top >> i & 1 else wraps for i in range(len(upper))]
    return lower + builder.add(upper, correction, carry)[0]


def _low_bits(modulus: int) -> int:
    """m: the largest with 2^m a divisor of p - 1 and the residues p - 2^m .. p - 1 all negative."""
    spare = modulus - (1 << (modulus_bits(modulus) - 1))
    low = 0
    while (modulus - 1) % (2 << low) == 0 and 2 << low <= spare:
        low += 1
    return low
