"""What the client learns of the weights from the noise of a policy's replies: bits of statistical hiding by number of
images.

    python -m autoprivacy.he.bfv.leakage --network integer.npz --policy policy.json

prints the table of docs/security.md. A decrypted reply shows the client its noise, v + g: v depends on the weights, g
is the flood, Gaussian of standard deviation s, which follows from the policy's norm bounds. Two networks within the
bounds differ there by a shift of the mean alone, so for N flooded coefficients and shifts of root mean square rho s the
two views are at a total variation distance of erf(rho sqrt(N) / (2 sqrt 2)): N coefficients count like one of sqrt(N)
times the ratio, not of N times. No weight enters the table.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

from scipy.special import erf

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.reply_bits import default_reply_bits
from autoprivacy.he.bfv.triples import TripleLayout
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters.noise import deployed_noise
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork

# Two networks' weighted parts are independent: their difference is sqrt(2) times as wide as one.
DIFFERENCE = math.sqrt(2)
TABLE_IMAGES = (1, 1000, 1 << 20, 1 << 30)


@dataclass(frozen=True)
class LayerFlood:
    """One layer's replies to one image.

    Attributes:
        coefficients: flooded coefficients that the client decrypts.
        ratio: standard deviation of the weight-dependent noise over the flood's; infinite without a flood.
    """

    name: str
    coefficients: int
    ratio: float


def layer_floods(architecture: Architecture, policy: Policy) -> list[LayerFlood]:
    """Every layer's flooded coefficients and ratio as deployed, then the triples'; UserError where nothing fits."""
    policy.check_layers([shape.name for shape in architecture.layers])
    from_tiling = packing_named(policy.packing).from_tiling
    floods = []
    for entry in policy.layers:
        shape, parameters = architecture.layer(entry.name), entry.parameters
        plan = from_tiling(shape, parameters.polynomial_degree, parameters.plaintext_modulus, entry.tiling)
        bits = entry.reply_bits or default_reply_bits(plan.workload, parameters, entry.target)
        noise = deployed_noise(plan.public_noise(entry.norm_bound), parameters, policy.flooding, entry.target, bits)
        ratio = noise.weighted / noise.flood if noise.flood else math.inf
        floods.append(LayerFlood(entry.name, plan.workload.reply_coefficients, ratio))
    return floods + _triples_flood(architecture, policy)


def _triples_flood(architecture: Architecture, policy: Policy) -> list[LayerFlood]:
    """Of the triples' reply, whose noise depends on the masks rho of values that depend on the weights."""
    if not (triples := policy.triples):
        return []
    kinds = policy.activation_kinds(architecture)
    count = sum(math.prod(node.shape) for node in architecture.squares if kinds[node.name] == "garbled")
    layout = TripleLayout.of(count, triples.parameters)
    noise = deployed_noise(layout.noise, triples.parameters, policy.flooding, triples.target, triples.reply_bits)
    ratio = noise.weighted / noise.flood if noise.flood else math.inf
    return [LayerFlood("triples", layout.workload.reply_coefficients, ratio)]


def hidden_bits(floods: list[LayerFlood], images: int) -> float:
    """-log2 of the total variation distance between the views of two networks' replies to so many images.

    Both are within the policy's norm bounds. The noisiest coefficient's shift is assumed for all coefficients, and that
    both networks' noise is independent: the distance is an upper bound on average over the client's own noise. 0 where
    nothing is hidden.
    """
    shift = math.sqrt(images * sum(DIFFERENCE**2 * flood.ratio**2 * flood.coefficients for flood in floods))
    return 0.0 if math.isinf(shift) else max(0.0, -math.log2(float(erf(shift / (2 * math.sqrt(2))))))


def table(architecture: Architecture, policy: Policy) -> str:
    """The bits by number of images, as a Markdown table."""
    floods = layer_floods(architecture, policy)
    coefficients = sum(flood.coefficients for flood in floods)
    lines = [
        f"{policy.network}, {policy.scheme}, {policy.packing} packing, flooding {policy.flooding.kind}: "
        f"{coefficients} flooded coefficients an image",
        "",
        "| images | distance of the views at most 2^-bits |",
        "|---:|---:|",
    ]
    return "\n".join([*lines, *(f"| {count} | {hidden_bits(floods, count):.1f} |" for count in TABLE_IMAGES)])


def main(arguments: list[str] | None = None) -> int:
    """Print the table of a network under a policy."""
    parser = argparse.ArgumentParser(description="Bits by which flooding hides the weights.")
    parser.add_argument("--network", required=True, help="the integer network, npz")
    parser.add_argument("--policy", required=True, help="the policy file")
    options = parser.parse_args(arguments)
    try:
        network, policy = IntegerNetwork.load(options.network), Policy.load(options.policy)
        policy.check_network(network)
        print(table(network.architecture, policy))
    except UserError as error:
        print(f"leakage: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
