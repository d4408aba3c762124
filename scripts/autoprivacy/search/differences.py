"""How far a policy's outputs are simulated to be from the integer network's, to hold what is measured against."""

from __future__ import annotations

import math

import numpy as np

from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.evaluation import Evaluator
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.outputs import shown
from autoprivacy.quantization.residues import Residues
from autoprivacy.search.decryption_errors import perturbation, simulated_shares

# Evaluations of an image for `simulated_rms`: with ten outputs each, which move together, the rms is a few percent off.
EVALUATIONS = 1000


def nearest(network: IntegerNetwork, policy: Policy, images: np.ndarray) -> np.ndarray:
    """What a client learns of the integer network's outputs modulo the policy's p, int64 [images, outputs].

    No decryption errors, and every activation rounds to the nearest, whatever share bits it ignores.
    """
    residues = policy.residues(network.architecture)
    return _shown(Evaluator(network, residues).forward(images).numpy(), policy, residues, network)


def _shown(outputs: np.ndarray, policy: Policy, residues: Residues, network: IntegerNetwork) -> np.ndarray:
    return shown(outputs, policy.output, residues.read[network.architecture.nodes[-1].name])


def simulated_differences(
    network: IntegerNetwork, policy: Policy, images: np.ndarray, seed: int, draws: int
) -> np.ndarray:
    """What simulated errors and random roundings change in what a client learns, int64 [draws, images, outputs].

    Args:
        network: the integer network.
        policy: with predictions of its layers' noise (UserError without).
        images: quantized, int64 [images, C, H, W].
        seed: of the errors and of the shares that decide how activations round.
        draws: how often each image is evaluated.
    """
    architecture = network.architecture
    residues = policy.residues(architecture)
    evaluator = Evaluator(network, residues, simulated_shares("evaluate", seed))
    errors = perturbation(policy, architecture, "evaluate", seed)
    outputs = evaluator.forward(np.tile(images, (draws, 1, 1, 1)), errors).numpy()
    learned = _shown(outputs, policy, residues, network)
    return learned.reshape(draws, len(images), -1) - nearest(network, policy, images)


def simulated_rms(network: IntegerNetwork, policy: Policy, images: np.ndarray, seed: int) -> float | None:
    """The root mean square of `simulated_differences`.

    0 for a policy that promises exactness; None for one that does not predict the noise of its layers, as a policy
    written by hand may not.
    """
    if not policy.approximate:
        return 0.0
    if not all(layer.predicted for layer in policy.layers):
        return None
    draws = math.ceil(EVALUATIONS / len(images))
    differences = simulated_differences(network, policy, images, seed, draws)
    return float(np.sqrt(np.mean(np.square(differences, dtype=np.float64))))
