"""Whatever evaluates an integer network, on networks drawn from all operations, against plain integer arithmetic."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from support.random_networks import RandomNetwork, random_images
from support.reference import reference_forward

from autoprivacy.protocol.shares import apply_layer, local_operation, masked_square, square_share
from autoprivacy.quantization.evaluation import FLOAT32_LIMIT, Evaluator, read_nodes
from autoprivacy.quantization.float_forms import INTEGER, forms
from autoprivacy.quantization.graph_check import read_architecture
from autoprivacy.quantization.integer_network import Architecture, rounding_constant, to_signed
from autoprivacy.quantization.residues import Residues, tied_layers
from autoprivacy.quantization.windows import Window
from autoprivacy.search.finetuning import TrainableNetwork

SEEDS = range(36)
MODULI = (251, 1 << 12, 65537)


def cut(network, name):
    """The network up to a node, which becomes the output."""
    nodes = network.architecture.nodes
    end = [node.name for node in nodes].index(name) + 1
    shapes = tuple(s for s in network.architecture.layers if s.name in {node.name for node in nodes[:end]})
    architecture = Architecture(nodes[:end], shapes, (0.5,) * 3, (0.25,) * 3, 0.02)
    return type(network)(architecture, network.layers, 1.0)


def values_of(network, image, modulus, name):
    """A node's values before reduction when all before it is computed modulo p, signed; flat."""
    return reference_forward(cut(network, name), image, modulus)


def test_the_networks_drawn_have_every_operation_and_many_forms():
    networks = [RandomNetwork(seed).network() for seed in SEEDS]
    operations = Counter(node.operation for network in networks for node in network.architecture.nodes)
    assert min(operations.values()) >= 20 and len(operations) == 10
    assert sum(len(network.architecture.maxima) for network in networks) >= 20
    kept = [form for network in networks for form in forms(network.architecture).values()]
    assert sum(form.offset > 0 for form in kept) >= 10 and INTEGER in kept
    assert sum(form.exponent > 0 and not form.offset for form in kept) >= 20
    factors = [node.factor for network in networks for node in network.architecture.nodes]
    assert {type(factor) for factor in factors} == {int, tuple}
    assert sum(len(network.architecture.squares) for network in networks) >= 20


@pytest.mark.parametrize("seed", range(5))
def test_files_and_announcements_hold_every_operation(seed, tmp_path):
    network = RandomNetwork(seed).network()
    network.save(tmp_path / "network.npz")
    assert type(network).load(tmp_path / "network.npz").architecture == network.architecture
    assert read_architecture(json.loads(json.dumps(network.architecture.as_json()))) == network.architecture


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluator_equals_plain_integer_arithmetic(seed):
    network = RandomNetwork(seed).network()
    images = random_images(network, 3, seed)
    wraps = 0
    for modulus in (None, *MODULI):
        evaluator = Evaluator(network, modulus)
        expected = [reference_forward(network, image, modulus) for image in images]
        np.testing.assert_array_equal(evaluator.forward(images).numpy(), expected)
        wraps += evaluator.wraps.total()
    assert wraps > 0


def check_windows(seed):
    """The evaluator beside plain arithmetic where every layer has a window; how many values wrapped."""
    network = RandomNetwork(seed).network()
    architecture, images = network.architecture, random_images(network, 3, seed)
    rng, step = np.random.default_rng(seed), 1 << max((node.shift for node in architecture.activations), default=0)
    size = max(8 * step, 1 << 9)
    windows = {}
    for group in tied_layers(architecture):
        window = Window(size, -int(rng.integers(1, size // step - 1)) * step)
        windows |= dict.fromkeys(group, window)
    names = [layer.name for layer in architecture.layers]
    residues = Residues.of(architecture, dict.fromkeys(names, 1 << 20), dict.fromkeys(names, 0), windows)
    evaluator = Evaluator(network, residues)
    expected = [reference_forward(network, image, residues) for image in images]
    np.testing.assert_array_equal(evaluator.forward(images).numpy(), expected)
    fed = [node for node in architecture.activations if architecture.feeders[node.inputs[0]]]
    assert set(residues.windows) == {node.inputs[0] for node in fed}
    assert all(residues.window(node.inputs[0]).size == size for node in fed)
    return evaluator.wraps.total()


def test_evaluator_reads_windows_as_plain_integer_arithmetic():
    assert sum(check_windows(seed) > 0 for seed in SEEDS) > len(SEEDS) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_statistics_are_those_of_the_true_values(seed):
    network = RandomNetwork(seed).network()
    images = random_images(network, 2, seed)
    for name, seen in Evaluator(network, None).statistics(images).items():
        values = np.array([values_of(network, image, None, name) for image in images])
        assert (seen.minimum, seen.maximum, seen.count) == (values.min(), values.max(), values.size)
        assert seen.standard_deviation == pytest.approx(values.std(), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_wraps_are_counted_where_a_signed_residue_is_not_the_true_value(seed):
    network, modulus = RandomNetwork(seed).network(), 1 << 12
    images = random_images(network, 2, seed)
    # before the first activation nothing is reduced, so the true values are known
    name = next(node.inputs[0] for node in network.architecture.nodes if node.operation == "activation")
    shift = read_nodes(network.architecture)[name]
    first = cut(network, name)
    evaluator = Evaluator(first, modulus)
    evaluator.forward(images)
    true = np.array([reference_forward(first, image, None) for image in images])
    assert evaluator.wraps[name] == (to_signed(true, modulus) != true).sum()
    whole = Evaluator(network, modulus)
    whole.forward(images)
    rounded = true + rounding_constant(shift)
    readers = [node for node in network.architecture.nodes if name in node.inputs and node.operation == "activation"]
    if len(readers) == 1:
        assert whole.wraps[name] == (to_signed(rounded, modulus) != rounded).sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_errors_reach_every_layer_before_the_reduction(seed):
    network = RandomNetwork(seed).network()
    images = random_images(network, 2, seed)
    seen = []

    def perturb(name, values):
        assert torch.equal(values, values.round())
        seen.append(name)
        return values + (len(name) * 5 - 11)

    moved = {
        name: type(layer)(layer.shape, layer.weight, layer.bias + len(name) * 5 - 11)
        for name, layer in network.layers.items()
    }
    expected = [reference_forward(network.with_weights(moved), image, 65537) for image in images]
    np.testing.assert_array_equal(Evaluator(network, 65537).forward(images, perturb).numpy(), expected)
    assert seen == list(network.layers)


@pytest.mark.parametrize("seed", SEEDS)
def test_trainable_network_equals_plain_integer_arithmetic(seed):
    network = RandomNetwork(seed, limit=FLOAT32_LIMIT).network()
    images = random_images(network, 3, seed)
    with torch.no_grad():
        logits = TrainableNetwork(network)(torch.from_numpy(images).float())
    expected = np.array([reference_forward(network, image, None) for image in images])
    assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)


def squared(x, rng, modulus):
    """Both parties' shares of x^2 from a Beaver triple."""
    rho, a, mask, own = rng.integers(0, modulus, (4, *x.shape))
    masked = masked_square((x + rho) % modulus, a, (a * rho - mask) % modulus, own, modulus)
    return [own, square_share(masked, rho, mask, modulus)]


@pytest.mark.parametrize("seed", SEEDS)
def test_shares_follow_the_integer_network(seed):
    """Both parties' steps on random shares; activations, which circuits do, are opened and shared anew."""
    network, modulus = RandomNetwork(seed).network(), 65537
    rng = np.random.default_rng(seed)
    (image,) = random_images(network, 1, seed)
    shares: dict = {}

    def share(values):
        mask = rng.integers(0, modulus, values.shape)
        return [mask, (values - mask) % modulus]

    for node in network.architecture.nodes:
        inputs = [shares[name] for name in node.inputs]
        if node.operation == "input":
            shares[node.name] = share(image)
        elif node.operation == "linear":
            shares[node.name] = share(apply_layer(network.layers[node.name], sum(inputs[0]) % modulus, modulus))
        elif node.operation == "activation":
            signed = to_signed(sum(inputs[0]) + rounding_constant(node.shift), modulus)
            if node.modulus_bits:  # narrow values, whose sign 2^16 + 1 does not tell
                signed = (signed + modulus // 2) % modulus - modulus // 2
            clipped = np.clip(signed >> node.shift, node.minimum, node.maximum)
            if node.squared:
                shares[node.name] = squared(clipped, rng, modulus)
            else:
                shares[node.name] = share(clipped)
        else:
            shares[node.name] = [local_operation(node, [pair[i] for pair in inputs], modulus) for i in (0, 1)]
        assert shares[node.name][0].shape == node.shape
    outputs = to_signed(sum(shares[node.name]), modulus).reshape(-1)
    np.testing.assert_array_equal(outputs, reference_forward(network, image, modulus))
