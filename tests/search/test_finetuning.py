"""Finetuning: the trainable network is the integer network, and training it helps against decryption errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.reference import reference_forward
from support.search_support import images_of, small_network
from torch.nn import functional as F

from autoprivacy.data.dataset import Split
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.commitment import check_norms, norm_bounds
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.residues import Residues
from autoprivacy.search import finetuning
from autoprivacy.search.decryption_errors import CoefficientErrors, Perturbation, simulated_shares
from autoprivacy.search.finetuning import FinetuneSettings, TrainableNetwork, finetune, straight_through

SETTINGS = FinetuneSettings(epochs=2, batch_size=32, learning_rate=5e-3, crop_padding=0)
ERRORS = {"first": CoefficientErrors(40.0), "body.second": CoefficientErrors(40.0), "fc": CoefficientErrors(200.0)}


def integers(network: IntegerNetwork, split: Split) -> np.ndarray:
    return network.architecture.quantize_images(split.images)


def loss_of(network: IntegerNetwork, split: Split, perturb: Perturbation | None = None) -> float:
    with torch.no_grad():
        logits = TrainableNetwork(network)(torch.from_numpy(integers(network, split)).float(), perturb)
    return float(F.cross_entropy(logits, torch.from_numpy(split.labels)))


def same_weights(one: IntegerNetwork, other: IntegerNetwork) -> bool:
    return one.architecture == other.architecture and all(
        np.array_equal(layer.weight, other.layers[name].weight) and np.array_equal(layer.bias, other.layers[name].bias)
        for name, layer in one.layers.items()
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_forward_pass_equals_the_integer_reference(seed: int) -> None:
    network, split = small_network(seed), images_of(6, seed)
    images = integers(network, split)
    expected = np.stack([reference_forward(network, image, None) for image in images])
    for layout in (torch.contiguous_format, torch.channels_last):
        values = torch.from_numpy(images).float().contiguous(memory_format=layout)
        logits = TrainableNetwork(network)(values)
        assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)
    assert len(np.unique(expected)) > 12  # the comparison means something


def test_forward_pass_with_shift_zero_equals_the_integer_reference() -> None:
    network = small_network()
    nodes = tuple(
        replace(n, shift=0, minimum=-3000, maximum=3000) if n.name == "clipped" else n
        for n in network.architecture.nodes
    )
    network = replace(network, architecture=replace(network.architecture, nodes=nodes))
    images = integers(network, images_of(4))
    expected = np.stack([reference_forward(network, image, None) for image in images])
    logits = TrainableNetwork(network)(torch.from_numpy(images).float())
    assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)


def test_errors_enter_every_linear_layer_once() -> None:
    network, split = small_network(), images_of(3)
    images, seen = integers(network, split), []

    def shifted(name: str, accumulator: torch.Tensor) -> torch.Tensor:
        seen.append(name)
        return accumulator + 5

    logits = TrainableNetwork(network)(torch.from_numpy(images).float(), shifted)
    moved = {name: replace(layer, bias=layer.bias + 5) for name, layer in network.layers.items()}
    expected = np.stack([reference_forward(network.with_weights(moved), image, None) for image in images])
    assert seen == list(network.layers)
    assert torch.equal(logits, torch.from_numpy(expected).float() * network.output_scale)


def test_the_forward_pass_rounds_as_the_shares_that_are_drawn_say() -> None:
    network, split = small_network(), images_of(5)
    bits = {"first.relu": 6, "clipped": 3}
    errors = Perturbation(ERRORS, "finetune", 3, block=2, ignored_bits=bits)
    images = torch.from_numpy(integers(network, split))
    logits = TrainableNetwork(network)(images.float(), errors, errors.rounding)
    # the evaluator modulo 2^k, given the same errors and shares
    residues = replace(Residues.uniform(network.architecture, 1 << 26), ignored_bits=bits)
    evaluator = Evaluator(network, residues, simulated_shares("finetune", 3, 2))
    expected = evaluator.forward(images, errors.at(2))
    assert torch.equal(logits, expected.float() * network.output_scale)
    nearest = TrainableNetwork(network)(images.float(), errors.at(2))
    assert not torch.equal(logits, nearest)
    assert not torch.equal(logits, TrainableNetwork(network)(images.float(), errors.at(2), errors.at(3).rounding))


def test_gradients_pass_straight_through() -> None:
    value = torch.tensor([0.4, 1.6], requires_grad=True)
    result = straight_through(value, value.round() + 7)
    assert result.tolist() == [7.0, 9.0]
    (result * torch.tensor([2.0, 3.0])).sum().backward()
    assert value.grad is not None and value.grad.tolist() == [2.0, 3.0]


def test_gradients_of_the_activation_are_those_of_the_clipped_line() -> None:
    node = next(n for n in small_network().architecture.nodes if n.name == "first.relu")
    values = torch.tensor([-500.0, 64.0, 6400.0, 64.0 * 300], requires_grad=True)
    result = finetuning._Activation.apply(values, node, 32)
    assert result.tolist() == [0.0, 1.0, 100.0, 255.0]
    result.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0.0, 1 / 64, 1 / 64, 0.0]


def test_bias_gradient_matches_a_finite_difference_of_the_output_layer() -> None:
    network, split = small_network(), images_of(8)
    model = TrainableNetwork(network)
    images, labels = torch.from_numpy(integers(network, split)).float(), torch.from_numpy(split.labels)
    F.cross_entropy(model(images), labels).backward()
    layer = model.layers[model.index["fc"]]
    step = 1000
    bias = network.layers["fc"].bias
    moved = [bias + sign * step * np.eye(4, dtype=np.int64)[2] for sign in (1, -1)]
    losses = [
        loss_of(network.with_weights({**network.layers, "fc": replace(network.layers["fc"], bias=b)}), split)
        for b in moved
    ]
    expected = (losses[0] - losses[1]) / (2 * step) * layer.bias_unit  # type: ignore[operator]
    assert float(layer.bias_change.grad[2]) == pytest.approx(expected, rel=1e-2)  # type: ignore[index]


def test_zero_epochs_return_the_same_network() -> None:
    network = small_network()
    assert finetune(network, images_of(8), None, replace(SETTINGS, epochs=0), 1) is network
    assert same_weights(TrainableNetwork(network).rounded(), network)


def test_extreme_weights_and_large_biases_survive_unchanged() -> None:
    network = small_network()
    layer = network.layers["first"]
    weight = np.where(layer.weight >= 0, 127, -127)
    bias = np.array([2**23 - 1, -(2**23) + 1, 8_000_001, 3, 0, -7])
    network = network.with_weights({**network.layers, "first": replace(layer, weight=weight, bias=bias)})
    model = TrainableNetwork(network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-6)
    model.clamp()
    assert same_weights(model.rounded(), network)


def test_training_lowers_the_loss_and_keeps_8_bit_weights() -> None:
    network, train, test = small_network(), images_of(512, 3), images_of(256, 4)
    tuned = finetune(network, train, None, replace(SETTINGS, epochs=4), 1)
    assert loss_of(tuned, test) < 0.6 * loss_of(network, test)
    assert not same_weights(tuned, network)
    assert tuned.architecture == network.architecture and tuned.output_scale == network.output_scale
    assert all(np.abs(layer.weight).max() <= 127 for layer in tuned.layers.values())


def test_training_with_errors_lowers_the_loss_under_the_other_half_of_them() -> None:
    network, train, test = small_network(), images_of(512, 3), images_of(256, 4)
    taus = {"first": 200.0, "body.second": 2000.0, "fc": 30000.0}
    noisy = {name: CoefficientErrors(tau) for name, tau in taus.items()}
    evaluate = Perturbation(noisy, "evaluate", 1)
    tuned = finetune(network, train, Perturbation(noisy, "finetune", 1), replace(SETTINGS, epochs=4), 1)
    assert loss_of(tuned, test, evaluate.at(0)) < 0.8 * loss_of(network, test, evaluate.at(0))


def test_the_same_seed_gives_the_same_network_and_another_does_not() -> None:
    network, train = small_network(), images_of(96)
    settings = replace(SETTINGS, crop_padding=1)
    first, again, other = (
        finetune(network, train, Perturbation(ERRORS, "finetune", 1), settings, s) for s in (1, 1, 2)
    )
    assert same_weights(first, again) and not same_weights(first, other)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, train = small_network(), images_of(100)  # the last batch of an epoch is a partial one
    errors = Perturbation(ERRORS, "finetune", 1)
    settings = replace(SETTINGS, crop_padding=1, save_every_seconds=0.0)
    expected = finetune(network, train, errors, settings, 1)
    state = tmp_path / "state.pt"
    steps = 0
    train_step = finetuning._Finetuning._train_step

    def killed_after_five(run: finetuning._Finetuning, images: torch.Tensor, labels: torch.Tensor) -> float:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return train_step(run, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning._Finetuning, "_train_step", killed_after_five)
        with pytest.raises(KeyboardInterrupt):
            finetune(network, train, errors, settings, 1, state)
    assert same_weights(finetune(network, train, errors, settings, 1, state), expected)


def test_weights_that_outgrow_their_norm_bound_are_scaled_back() -> None:
    """The policy's flood is sized by the bound, so the finetuned network must stay within it."""
    network = small_network()
    model = TrainableNetwork(network)
    for layer in model.layers:
        layer.weight_change.data += 0.5 * torch.sign(layer.start_weight)
    rounded = model.rounded()
    bounds = norm_bounds(network)
    check_norms(rounded, bounds, "policy")
    for name, layer in rounded.layers.items():
        assert layer.weight_norm > 0.98 * bounds[name] > network.layers[name].weight_norm


def test_mistakes_are_named() -> None:
    network = small_network()
    with pytest.raises(UserError, match="holds no image"):
        finetune(network, images_of(8).take(slice(0, 0)), None, SETTINGS, 1)
    with pytest.raises(UserError, match="positive learning_rate"):
        replace(SETTINGS, learning_rate=0.0)
    with pytest.raises(UserError, match="expected epochs"):
        replace(SETTINGS, epochs=-1)
    endless = replace(network, output_scale=float("inf"))
    with pytest.raises(UserError, match="the loss is nan at step 1 of 2; choose a learning_rate below"):
        finetune(endless, images_of(8), None, replace(SETTINGS, batch_size=8), 1)
