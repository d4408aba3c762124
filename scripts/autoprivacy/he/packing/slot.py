"""Slot packing: a convolution as slot-by-slot products with rotations of the results.

After GAZELLE (Juvekar, Vaikuntanathan, Chandrakasan, USENIX Security 2018, section 4) and DELPHI (Mishra et al., USENIX
Security 2020): the client, which knows the image, sends it once per filter tap, shifted already, so a convolution is a
matrix product for every output pixel. A column of the matrix, one input channel under one tap, is called a feature.

A ciphertext's slots fall into lanes of consecutive slots; a lane holds one feature at some output pixels. Weights are
laid out along diagonals: product d brings the feature of lane a + d to the output of lane a. The server sums the
products of each diagonal over all input ciphertexts and rotates the sums into place, one lane at a time and with a
single key: s_0 + rot(s_1 + rot(s_2 + ...)). Where features outnumber the outputs, partial sums are then folded in two
again and again by longer rotations. Ciphertexts with few features repeat them, and each repetition serves other
outputs. In grouped layers nothing is rotated: a lane is an output and holds the feature that the output wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoprivacy.errors import UserError
from autoprivacy.he.packing.batching import SlotEncoding, slot_encoding
from autoprivacy.he.packing.layout import ceil_divide
from autoprivacy.he.packing.plan import EvaluationPlan, Rotate, Workload, cheapest_by_counts, tiling_from_json
from autoprivacy.he.parameters.noise import LayerNoise
from autoprivacy.he.parameters.noise_bounds import NoiseBound
from autoprivacy.he.ring.automorphisms import rotation_element, swap_element
from autoprivacy.he.ring.ring import Ring
from autoprivacy.quantization.integer_network import LayerShape

# How many lane sizes are tried from the smallest that holds the whole image downwards.
LANE_SIZES = 3
# With so few lanes nearly all coefficients of the weights' polynomials are zero.
SPARSE_LANES = 2


def _is_power_of_two(value: int) -> bool:
    return value >= 1 and value & (value - 1) == 0


def _power_of_two_from(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True)
class SlotPlan(EvaluationPlan):
    """How one layer is laid out in the slots of ciphertexts.

    Ciphertexts are numbered block * bands + band: a block holds some features or outputs, a band some pixels.

    Attributes:
        shape: the layer.
        degree: n, the number of slots.
        plaintext_modulus: p, a prime == 1 mod 2n.
        lane_pixels: slots in a lane, a power of two.
        features: different features in an input ciphertext, a power of two; 1 for a grouped layer.
        diagonals: products per pair of input and output ciphertext, a power of two of at most `features`; a reply holds
            `diagonals` outputs for each time that the features are repeated.

    Raises:
        UserError: p does not batch, or the tiling does not fit n slots.
    """

    shape: LayerShape
    degree: int
    plaintext_modulus: int
    lane_pixels: int
    features: int
    diagonals: int

    def __post_init__(self) -> None:
        powers = all(map(_is_power_of_two, self.tiling.values()))
        fits = self.diagonals <= self.features and self.lane_pixels * self.features <= self.degree
        if not powers or not fits or (self.shape.groups > 1 and self.features > 1):
            raise UserError(
                f"layer {self.shape.name}: tiling {self.tiling}; expected powers of two, diagonals <= features (1 for "
                f"a grouped layer), lane_pixels * features <= n = {self.degree}"
            )
        slot_encoding(self.degree, self.plaintext_modulus)  # refuses a p that does not batch

    @classmethod
    def from_tiling(cls, shape: LayerShape, degree: int, plaintext_modulus: int, tiling: dict[str, int]) -> SlotPlan:
        """The plan that `tiling` describes, as a policy file holds it; UserError when it does not fit or is damaged."""
        return tiling_from_json(shape, tiling, lambda sizes: cls(shape, degree, plaintext_modulus, **sizes))

    @property
    def tiling(self) -> dict[str, int]:
        """What distinguishes this plan from others of the same layer, n and p."""
        return {"lane_pixels": self.lane_pixels, "features": self.features, "diagonals": self.diagonals}

    @property
    def encoding(self) -> SlotEncoding:
        """Slots to plaintext polynomials."""
        return slot_encoding(self.degree, self.plaintext_modulus)

    @property
    def lanes(self) -> int:
        """Lanes of a ciphertext."""
        return self.degree // self.lane_pixels

    @property
    def row_lanes(self) -> int:
        """Lanes of one of the two rows of slots that rotations move in; a lane may also take both rows."""
        return max(1, self.lanes // 2)

    @property
    def bands(self) -> int:
        """Into how many runs of pixels the output image is cut."""
        _, rows, columns = self.shape.output_shape
        return ceil_divide(rows * columns, self.lane_pixels)

    @property
    def features_per_output(self) -> int:
        """Features that one output is a sum over: input channels of its group times taps."""
        return self.shape.input_shape[0] // self.shape.groups * self.shape.kernel[0] * self.shape.kernel[1]

    @property
    def outputs(self) -> int:
        """Output channels in a reply ciphertext."""
        return self.lanes // self.features * self.diagonals

    @property
    def output_blocks(self) -> int:
        """Ciphertexts per band that the server replies with."""
        return ceil_divide(self.shape.output_channels, self.outputs)

    @property
    def inputs_per_output(self) -> int:
        """Ciphertexts that go into one reply ciphertext."""
        return ceil_divide(self.features_per_output, self.features)

    @property
    def input_blocks(self) -> int:
        """Ciphertexts per band that the client sends; replies share them unless the layer is grouped."""
        return self.inputs_per_output * (self.output_blocks if self.shape.groups > 1 else 1)

    @property
    def weight_polynomials(self) -> int:
        """How many polynomials hold the weights; all bands use the same."""
        return self.output_blocks * self.diagonals * self.inputs_per_output

    @property
    def _folds(self) -> int:
        """How often partial sums are folded in two."""
        return (self.features // self.diagonals).bit_length() - 1

    @cached_property
    def workload(self) -> Workload:
        """Ciphertexts and operations; inputs, masks and replies are encoded. Each coefficient changes every slot."""
        return Workload(
            self.degree,
            self.input_ciphertexts,
            self.output_ciphertexts,
            products=self.weight_polynomials * self.bands,
            sums=self.sum_count * self.bands,
            rotations=(self.diagonals - 1 + self._folds) * self.output_ciphertexts,
            encodings=self.input_ciphertexts + 2 * self.output_ciphertexts,
            coefficients_per_output=self.degree,
            reply_coefficients=self.output_ciphertexts * self.degree,
        )

    @property
    def _fold_steps(self) -> list[int]:
        """Rotations within the rows that fold partial sums, in lanes."""
        reach = min(self.features, self.row_lanes)
        return [self.diagonals << j for j in range(self._folds) if self.diagonals << j < reach]

    @property
    def _swaps(self) -> bool:
        """Whether features fill both rows, so that sums of the two rows must be brought together."""
        return self.features > self.row_lanes

    def _rotation(self, lanes: int) -> int:
        return rotation_element(lanes * self.lane_pixels, self.degree)

    @cached_property
    def galois_elements(self) -> tuple[int, ...]:
        """The automorphisms that an evaluation uses, ascending; empty where it rotates nothing."""
        steps = [1] * (min(self.diagonals, self.row_lanes) > 1) + self._fold_steps
        elements = {self._rotation(step) for step in steps}
        return tuple(sorted(elements | ({swap_element(self.degree)} if self._swaps else set())))

    @cached_property
    def _lane_contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Feature of each lane, int64 [lanes]; output that diagonal d takes it to, int64 [diagonals, lanes].

        Both are counted within their ciphertexts. A second set of diagonals, where there are more than a row has lanes,
        ends in the other row.
        """
        lane = np.arange(self.lanes)
        row, place = np.divmod(lane, self.row_lanes)
        swaps, steps = np.divmod(np.arange(self.diagonals)[:, None], self.row_lanes)
        landing = (row ^ swaps) * self.row_lanes + (place - steps) % self.row_lanes
        return lane % self.features, landing // self.features * self.diagonals + landing % self.diagonals

    @cached_property
    def _feature_rows(self) -> np.ndarray:
        """Which row of the feature matrix each lane of each input block holds, int64; -1 for none.

        [input_blocks, lanes], rows channel by channel, tap by tap.
        """
        shape, count = self.shape, self.features_per_output
        if shape.groups == 1:
            rows = np.arange(self.input_blocks)[:, None] * self.features + self._lane_contents[0]
            return np.where(rows < count, rows, -1)
        block, feature, lane = np.ix_(*map(np.arange, (self.output_blocks, count, self.lanes)))
        output = block * self.lanes + lane
        rows = output // (shape.output_channels // shape.groups) * count + feature
        return np.where(output < shape.output_channels, rows, -1).reshape(-1, self.lanes)

    def _feature_matrix(self, values: np.ndarray) -> np.ndarray:
        """The image under every tap: [C * taps + 1, bands, lane_pixels], the last row zero."""
        shape, stride = self.shape, self.shape.stride
        padded = np.pad(values, ((0, 0), (shape.padding,) * 2, (shape.padding,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, shape.kernel, axis=(1, 2))[:, ::stride, ::stride]
        channels, rows, columns = windows.shape[:3]
        taps = shape.kernel[0] * shape.kernel[1]
        matrix = np.zeros((channels * taps + 1, self.bands * self.lane_pixels), values.dtype)
        matrix[:-1, : rows * columns] = windows.transpose(0, 3, 4, 1, 2).reshape(channels * taps, rows * columns)
        return matrix.reshape(-1, self.bands, self.lane_pixels)

    def encode_input(self, values: np.ndarray) -> np.ndarray:
        """Residues modulo p, uint64 [C, H, W], as plaintext polynomials uint64 [input_ciphertexts, n]."""
        if values.shape != self.shape.input_shape:
            raise ValueError(f"layer {self.shape.name}: input {values.shape}, expected {self.shape.input_shape}")
        slots = self._feature_matrix(values)[self._feature_rows].transpose(0, 2, 1, 3)
        return self.encoding.encode(slots.reshape(self.input_ciphertexts, self.degree))

    def _weight_lanes(self, weight: np.ndarray) -> np.ndarray:
        """The weight in each lane: int64 [output_blocks, diagonals, inputs_per_output, lanes]."""
        features, outputs = self._lane_contents
        matrix = np.zeros((self.output_blocks * self.outputs, self.inputs_per_output * self.features), np.int64)
        matrix[: len(weight), : self.features_per_output] = weight.reshape(len(weight), -1)
        blocks = matrix.reshape(self.output_blocks, self.outputs, self.inputs_per_output, self.features)
        return blocks[:, outputs, :, features].transpose(2, 0, 3, 1)

    def encode_weights(self, weight: np.ndarray) -> np.ndarray:
        """Weights int64 [O, C / groups, kernel height, kernel width] as coefficients int64 [weight_polynomials, n].

        By output block, diagonal and input ciphertext; coefficients are of least magnitude modulo p.
        """
        p, lanes = self.plaintext_modulus, self._weight_lanes(weight)
        polynomials = np.empty((self.output_blocks, self.diagonals * self.inputs_per_output, self.degree), np.int64)
        for block, values in zip(polynomials, lanes, strict=True):
            residues = (values.reshape(-1, self.lanes) % p).astype(np.uint64)
            block[:] = self.encoding.encode(np.repeat(residues, self.lane_pixels, axis=1))
        polynomials -= p * (polynomials > p // 2)
        return polynomials.reshape(-1, self.degree)

    def noise(self, weight: np.ndarray) -> LayerNoise:
        """What the layer does to fresh noise: to the coefficient, and in the reply, where it is most.

        The coefficients of a weight polynomial are as good as uniform modulo p, variance p^2 / 12, but for every
        `row_lanes`-th, which is zero: its root of unity runs through full circles in each lane. With one or two lanes
        that leaves few, and they are computed. Folding in two adds a polynomial to a rotation of itself: that doubles
        the variance, but not everywhere. Rotations leave the constant coefficient in place, so there it is the standard
        deviation that doubles, and one wrong coefficient spoils every slot.
        """
        p = self.plaintext_modulus
        squares = self._dense_squares
        if self.lanes <= SPARSE_LANES:
            basis = self.encoding.encode(np.repeat(np.eye(self.lanes, dtype=np.uint64), self.lane_pixels, axis=1))
            basis = basis[:, basis.any(0)].astype(np.int64)
            coefficients = (self._weight_lanes(weight) @ basis) % p
            centred = coefficients - p * (coefficients > p // 2)
            squares = float((centred.astype(np.float64) ** 2).sum((1, 2, 3)).max())
        return self._noise_of(squares)

    def public_noise(self, norm_bound: float) -> LayerNoise:
        """That of any weights: with more than two lanes, whose coefficients are uniform, it is the same for all.

        With one lane polynomials are numbers, the weights of one output; with two they have two coefficients, of p / 2
        at most.
        """
        if self.lanes == 1:
            return self._noise_of(norm_bound**2)
        if self.lanes <= SPARSE_LANES:
            return self._noise_of(
                self.diagonals * self.inputs_per_output * self.lanes * (self.plaintext_modulus / 2) ** 2
            )
        return self._noise_of(self._dense_squares)

    @property
    def _dense_squares(self) -> float:
        """The sum of the squares of the coefficients of a reply's polynomials, were they uniform."""
        not_zero = self.degree - self.degree // self.row_lanes
        return self.diagonals * self.inputs_per_output * not_zero * self.plaintext_modulus**2 / 12

    def _noise_of(self, squares: float) -> LayerNoise:
        """The noise for that sum."""
        rotations = self.diagonals - 1
        for _ in range(self._folds):
            rotations = 4 * rotations + 1
        return LayerNoise(squares**0.5 * (self.features // self.diagonals), rotations, self.degree)

    def public_noise_bound(self, norm_bound: float) -> NoiseBound:
        """`noise_bound` holds for any weights."""
        return self._noise_bound

    @property
    def _noise_bound(self) -> NoiseBound:
        products = self.diagonals * self.inputs_per_output * self.degree * self.plaintext_modulus / 2
        folded = self.features // self.diagonals
        rotations = self.diagonals * folded - 1  # r -> 2 r + 1 with every folding, from diagonals - 1
        return NoiseBound(products * folded, rotations)

    def noise_bound(self, weight: np.ndarray) -> NoiseBound:
        """What the layer does to bounds of noise, whatever its weights are.

        Weight polynomials have n coefficients of up to p / 2 (GAZELLE, section 3: multiplication by a plaintext), and a
        reply adds up `diagonals` times `inputs_per_output` products; every folding in two doubles what there is.
        """
        return self._noise_bound

    @property
    def sum_count(self) -> int:
        """How many sums of products there are per band: one for every output block and diagonal."""
        return self.output_blocks * self.diagonals

    @cached_property
    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Input block and sum of each weight polynomial, int64 [weight_polynomials] each."""
        sums = np.repeat(np.arange(self.sum_count), self.inputs_per_output)
        inputs = np.tile(np.arange(self.inputs_per_output), self.sum_count)
        return inputs + (sums * self.inputs_per_output if self.shape.groups > 1 else 0), sums

    def gather(self, ring: Ring, sums: np.ndarray, rotate: Rotate) -> np.ndarray:
        """The results from the sums of products: [sum_count, bands, 2, k, n] -> [output_blocks, bands, 2, k, n]."""
        blocks = sums.reshape(self.output_blocks, self.diagonals, *sums.shape[1:])
        return np.stack([self._gather(ring, block, rotate) for block in blocks])

    def _gather(self, ring: Ring, sums: np.ndarray, rotate: Rotate) -> np.ndarray:
        """One output block: [diagonals, bands, 2, k, n] -> [bands, 2, k, n]."""

        def along_row(parts: np.ndarray) -> np.ndarray:
            total = parts[-1]
            for part in parts[-2::-1]:
                total = ring.add(rotate(total, self._rotation(1)), part)
            return total

        total = along_row(sums[: self.row_lanes])
        for step in self._fold_steps:
            total = ring.add(total, rotate(total, self._rotation(step)))
        if self._swaps:
            other = along_row(sums[self.row_lanes :]) if self.diagonals > self.row_lanes else total
            total = ring.add(total, rotate(other, swap_element(self.degree)))
        return total

    @cached_property
    def output_positions(self) -> np.ndarray:
        """Where each output stands among the slots [output_ciphertexts * n], int64 [O * H_out * W_out]."""
        channels, rows, columns = self.shape.output_shape
        output, pixel = np.ix_(np.arange(channels), np.arange(rows * columns))
        block, place = np.divmod(output, self.outputs)
        lane = place // self.diagonals * self.features + place % self.diagonals
        band, inside = np.divmod(pixel, self.lane_pixels)
        slot = lane * self.lane_pixels + inside
        return np.asarray((block * self.bands + band) * self.degree + slot, np.int64).reshape(-1)

    @property
    def reply_positions(self) -> None:
        """Which coefficients the client needs: all."""
        return None

    @property
    def groups(self) -> np.ndarray:
        """Outputs that decrypt wrongly together have one number: their ciphertext's, int64 [O, H_out, W_out]."""
        return (self.output_positions // self.degree).reshape(self.shape.output_shape)

    def encode_output(self, places: np.ndarray) -> np.ndarray:
        """Residues in slots, uint64 [output_ciphertexts, n], as plaintext polynomials."""
        return self.encoding.encode(places)

    def decode_output(self, polynomials: np.ndarray) -> np.ndarray:
        """The outputs, uint64 [O, H_out, W_out], in the slots of plaintext polynomials [output_ciphertexts, n]."""
        slots = self.encoding.decode(polynomials)
        return slots.reshape(-1)[self.output_positions].reshape(self.shape.output_shape)


def _candidates(shape: LayerShape, degree: int, p: int) -> Iterator[SlotPlan]:
    _, rows, columns = shape.output_shape
    largest = min(degree, _power_of_two_from(rows * columns))
    for pixels in (largest >> halvings for halvings in range(LANE_SIZES) if largest >> halvings):
        lanes = degree // pixels
        whole = SlotPlan(shape, degree, p, pixels, 1, 1).features_per_output
        most = 1 if shape.groups > 1 else min(lanes, _power_of_two_from(whole))
        for features in (1 << j for j in range(most.bit_length())):
            for diagonals in (1 << j for j in range(features.bit_length())):
                if diagonals == 1 or lanes // features * diagonals <= _power_of_two_from(shape.output_channels):
                    yield SlotPlan(shape, degree, p, pixels, features, diagonals)


def admissible_plans(shape: LayerShape, degree: int, plaintext_modulus: int) -> list[SlotPlan]:
    """The tilings of a layer worth considering at n: none needs as much as another of everything.

    Raises:
        UserError: p does not batch.
    """
    return cheapest_by_counts(
        _candidates(shape, degree, plaintext_modulus),
        lambda plan: (
            plan.input_ciphertexts,
            plan.output_ciphertexts,
            plan.workload.products,
            plan.workload.rotations,
            len(plan.galois_elements),
            # what brings more noise: weight polynomials that are not sparse, and folding
            int(plan.lanes > SPARSE_LANES),
            plan.features // plan.diagonals,
        ),
    )
