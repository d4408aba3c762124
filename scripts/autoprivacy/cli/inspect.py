"""Show what a policy or an integer network holds."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from autoprivacy.cli.tables import table
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.he.parameters.security import security_bits
from autoprivacy.quantization.integer_network import IntegerNetwork


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("file", help="a policy (.json) or an integer network (.npz)")
    parser.add_argument("--json", action="store_true", help="rows as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the file's table."""
    suffix = Path(options.file).suffix
    if suffix == ".json":
        title, header, rows = _policy(Policy.load(options.file))
    elif suffix == ".npz":
        title, header, rows = _network(IntegerNetwork.load(options.file))
    else:
        raise UserError(f"{options.file}: suffix {suffix or 'none'}; expected a policy, .json, or a network, .npz")
    if options.json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))
    else:
        print(f"{title}\n\n{table(header, rows)}")
    return 0


def _policy(policy: Policy) -> tuple[str, list[str], list[list[object]]]:
    exact = "approximate: outputs may differ from the integer network's" if policy.approximate else "exact"
    title = (
        f"policy {policy.scheme} of {policy.network}: {policy.packing} packing, {policy.flooding.kind} flooding, "
        f"{exact}; clients learn the {policy.output}"
    )
    header = ["layer", "p bits", "n", "log q", "security", "activation", "share bits", "predicted seconds", "because"]
    rows: list[list[object]] = []
    for layer in policy.layers:
        own = layer.parameters
        bits = sum(math.log2(prime) for prime in own.primes)
        security = int(security_bits(own.polynomial_degree, bits))
        seconds = layer.predicted.get("latency_seconds", float("nan"))
        rows.append(
            [
                layer.name,
                (own.plaintext_modulus - 1).bit_length(),
                own.polynomial_degree,
                round(bits),
                security,
                layer.activation,
                layer.window.bits if layer.window else (own.plaintext_modulus - 1).bit_length(),
                float(seconds),
                layer.activation_reason,
            ]
        )
    return title, header, rows


def _network(network: IntegerNetwork) -> tuple[str, list[str], list[list[object]]]:
    architecture = network.architecture
    image, outputs = architecture.nodes[0].shape, math.prod(architecture.nodes[-1].shape)
    activations = sum(math.prod(node.shape) for node in architecture.nodes if node.operation == "activation")
    listed = [*architecture.class_names[:5], *(["..."] if len(architecture.class_names) > 5 else [])]
    names = f" ({', '.join(listed)})" if listed else ""
    title = (
        f"integer network: images of {image[0]} channels and {image[1]}x{image[2]} pixels, {outputs} outputs{names}, "
        f"{len(network.layers)} linear layers, {activations} activations"
    )
    header = ["layer", "kind", "input", "output", "kernel", "stride", "groups", "weights"]
    rows: list[list[object]] = []
    for name, layer in network.layers.items():
        shape = layer.shape
        sides = ["x".join(map(str, side)) for side in (shape.input_shape, shape.output_shape, shape.kernel)]
        rows.append([name, shape.kind.replace("_", " "), *sides, shape.stride, shape.groups, int(layer.weight.size)])
    return title, header, rows
