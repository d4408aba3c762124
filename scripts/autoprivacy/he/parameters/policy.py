"""The policy file: for every linear layer its target, parameter set, tiling and prediction. Every scheme writes one,
`measure` reads it, and a person can write one by hand and gets it checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.quantization.integer_network import Architecture
from autoprivacy.quantization.residues import Residues
from autoprivacy.storage import read_json, write_json

FORMAT_VERSION = 1
# The rate that prior systems are built for (the paper's Table 1); about one error in 10^7 images of 10^5 outputs.
EXACT_TARGET = Target(decryption_error_rate=2.0**-40)


@dataclass(frozen=True)
class LayerPolicy:
    """One layer's parameters.

    Attributes:
        name: the layer's.
        target: what the parameter set was chosen for.
        parameters: the set.
        predicted: what was predicted for it, numbers by name, seconds and bytes; he.selection lists them.
        tiling: how the packing lays the layer out, `CoefficientPlan.tiling`; both parties derive the plan from it.
        reply_bits: what replies are sent in; None leaves it to `he.reply_bits.default_reply_bits` on both sides.
    """

    name: str
    target: Target
    parameters: ParameterSet
    predicted: dict[str, float] = field(default_factory=dict)
    tiling: dict[str, int] = field(default_factory=dict)
    reply_bits: ReplyBits | None = None

    def as_json(self) -> dict[str, Any]:
        """The layer as it stands in a policy file."""
        return {
            "name": self.name,
            "target": asdict(self.target),
            "parameters": self.parameters.as_json(),
            "tiling": self.tiling,
            "reply_bits": asdict(self.reply_bits) if self.reply_bits else None,
            "predicted": self.predicted,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LayerPolicy:
        """The inverse of `as_json`, with every check of target and parameters."""
        bits = value.get("reply_bits")
        return cls(
            value["name"],
            Target(**value["target"]),
            ParameterSet.from_json(value["parameters"]),
            value.get("predicted", {}),
            {name: int(size) for name, size in value["tiling"].items()},
            ReplyBits(int(bits["c0"]), int(bits["c1"])) if bits else None,
        )


@dataclass(frozen=True)
class TriplePolicy:
    """The parameters of the Beaver triples that squared activations take (`he.triples`).

    Attributes:
        target: what the set was chosen for, an error rate of ciphertexts.
        parameters: the set; its plaintext modulus is that of all layers.
        reply_bits: what the reply is sent in.
        predicted: as a layer's.
    """

    target: Target
    parameters: ParameterSet
    reply_bits: ReplyBits
    predicted: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The entry as it stands in a policy file."""
        return {
            "target": asdict(self.target),
            "parameters": self.parameters.as_json(),
            "reply_bits": asdict(self.reply_bits),
            "predicted": self.predicted,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TriplePolicy:
        """The inverse of `as_json`, with every check of target and parameters."""
        bits = value["reply_bits"]
        return cls(
            Target(**value["target"]),
            ParameterSet.from_json(value["parameters"]),
            ReplyBits(int(bits["c0"]), int(bits["c1"])),
            value.get("predicted", {}),
        )


@dataclass(frozen=True)
class Policy:
    """The parameters of a whole network.

    Attributes:
        network, scheme: their names.
        packing, flooding: of all layers.
        layers: in the network's order.
        predicted: totals.
        provenance: how it came about.
        triples: of the squared activations, where the network has such.
    """

    network: str
    scheme: str
    packing: str
    flooding: Flooding
    layers: tuple[LayerPolicy, ...]
    predicted: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    triples: TriplePolicy | None = None

    @property
    def evaluations(self) -> tuple[LayerPolicy | TriplePolicy, ...]:
        """Everything that is evaluated under encryption: the layers, then the triples where there are any."""
        return (*self.layers, self.triples) if self.triples else self.layers

    @property
    def parameter_sets(self) -> tuple[ParameterSet, ...]:
        """The distinct parameter sets in the order of their first use: one key pair each."""
        return tuple(dict.fromkeys(entry.parameters for entry in self.evaluations))

    def layer(self, name: str) -> LayerPolicy:
        """The policy of the layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def plaintext_modulus(self) -> int:
        """The one plaintext modulus of the network; UserError when its layers have several."""
        moduli = {layer.parameters.plaintext_modulus for layer in self.layers}
        if len(moduli) != 1:
            raise UserError(
                f"policy {self.scheme} of {self.network}: plaintext moduli {sorted(moduli)}; the protocol works modulo "
                "one: give all layers the largest"
            )
        return moduli.pop()

    def residues(self, architecture: Architecture) -> Residues:
        """What the layers' plaintext moduli and ignored share bits mean for the nodes of the network.

        Raises:
            UserError: values meet that have different moduli.
        """
        self.check_layers([layer.name for layer in architecture.layers])
        moduli = {layer.name: layer.parameters.plaintext_modulus for layer in self.layers}
        ignored = {layer.name: layer.target.ignored_share_bits for layer in self.layers}
        try:
            return Residues.of(architecture, moduli, ignored)
        except UserError as error:
            raise UserError(f"policy {self.scheme} of {self.network}: {error}") from None

    def check_layers(self, names: list[str]) -> None:
        """UserError unless the policy has exactly these layers, in this order."""
        got = [layer.name for layer in self.layers]
        if got != names:
            raise UserError(f"policy {self.scheme} of {self.network}: layers {got}; the network has {names}")

    def promises_exactness(self) -> bool:
        """Whether everything is meant to decrypt without errors: a rate of at most 2^-40, no share bits ignored."""
        targets = [entry.target for entry in self.evaluations]
        return all(target.z >= EXACT_TARGET.z and target.ignored_share_bits == 0 for target in targets)

    def essence(self) -> dict[str, Any]:
        """What the two parties must agree on: all but predictions and provenance, JSON-able."""
        layers = [{**layer.as_json(), "predicted": {}} for layer in self.layers]
        triples = {**self.triples.as_json(), "predicted": {}} if self.triples else None
        return {**self.as_json(), "layers": layers, "triples": triples, "predicted": {}, "provenance": {}}

    def as_json(self) -> dict[str, Any]:
        """The policy as a JSON-able value."""
        return {
            "format": FORMAT_VERSION,
            "network": self.network,
            "scheme": self.scheme,
            "packing": self.packing,
            "flooding": asdict(self.flooding),
            "predicted": self.predicted,
            "layers": [layer.as_json() for layer in self.layers],
            "triples": self.triples.as_json() if self.triples else None,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Policy:
        """The inverse of `as_json`; UserError, naming `where` it came from, says what is wrong."""
        try:
            if value["format"] != FORMAT_VERSION:
                raise UserError(f"{where}: policy format {value['format']}; expected {FORMAT_VERSION}")
            return cls(
                value["network"],
                value["scheme"],
                value["packing"],
                Flooding(**value["flooding"]),
                tuple(LayerPolicy.from_json(layer) for layer in value["layers"]),
                value.get("predicted", {}),
                value.get("provenance", {}),
                TriplePolicy.from_json(value["triples"]) if value.get("triples") is not None else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}: not a policy: {type(error).__name__} {error}; docs/architecture.md has the form"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read and check a policy file; UserError says what is wrong, every parameter set is checked for security."""
        return cls.from_json(read_json(path), str(path))
