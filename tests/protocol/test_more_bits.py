"""Networks of more than 8 bits under the protocol: outputs are those of the integer network."""

from __future__ import annotations

import numpy as np
from support.float_networks import Residual, randomised, smooth_dataset
from support.protocol_sessions import FLOODED, session
from support.reference import reference_forward

from autoprivacy.quantization.quantize import QuantizationSettings, quantize, required_range
from autoprivacy.selection.plaintext_modulus import plaintext_modulus
from autoprivacy.selection.schemes import darl


def wide(bits: int):
    """An integer network with so many bits of weights and activations, its largest range, an image."""
    dataset = smooth_dataset((8, 8))
    settings = QuantizationSettings(calibration_images=50, weight_bits=bits, activation_bits=bits)
    network, rows = quantize(randomised(Residual()).eval(), dataset, settings)
    return network, required_range(rows), network.architecture.quantize_images(dataset.test.images[:1])[0]


def test_outputs_of_11_bits_equal_the_integer_network_bit_for_bit():
    network, (minimum, maximum), image = wide(11)
    p = plaintext_modulus(maximum, minimum, power_of_two=True)
    assert p >> 24
    with session(darl(network, "wide", p, FLOODED), network) as (client, _):
        outputs = client.infer(client.prepare(), image)
    assert np.array_equal(outputs, reference_forward(network, image, p))
