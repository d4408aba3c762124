"""The policy file: for every linear layer its target, parameter set, tiling and prediction. Every scheme writes one,
`measure` reads it, and a person can write one by hand and gets it checked. docs/parameters.md describes the format."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.commitment import NetworkCommitment, check_norms
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.quantization.integer_network import Architecture, IntegerNetwork, Interval
from autoprivacy.quantization.outputs import Output, check_output
from autoprivacy.quantization.residues import Residues
from autoprivacy.quantization.windows import Window
from autoprivacy.storage import read_json, write_json

FORMAT_VERSION = 2
# How the activations that read a layer are computed.
ActivationKind = Literal["garbled", "lookup"]
MAXIMUM_NAME = 100  # characters of a name
SAFE_KAPPA = 40  # bits of flooding below which a server warns
# The rate that prior systems are built for (the paper's Table 1); about one error in 10^7 images of 10^5 outputs.
EXACT_TARGET = Target(decryption_error_rate=2.0**-40)


@dataclass(frozen=True)
class LayerPolicy:
    """One layer's parameters.

    Attributes:
        name: the layer's.
        target: what the parameter set was chosen for.
        parameters: the set.
        norm_bound: an upper bound of the 2-norm of the weights that feed one output. Noise, flood, q and replies follow
            from it alone, so that they tell no more of the weights than the bound does; a server refuses others.
        predicted: what was predicted for it, numbers by name, seconds and bytes; those that
            `selection.layer_selection.prediction` lists.
        tiling: how the packing lays the layer out, `CoefficientPlan.tiling`; both parties derive the plan from it.
        reply_bits: what replies are sent in; None leaves it to `he.bfv.reply_bits.default_reply_bits` on both sides.
        activation: how the activations that read the layer's output are computed.
        share_window: the smallest and the largest number, rounding included, that these activations tell apart modulo
            2^m, where p = 2^k: the high k - m bits of the shares are dropped. None: the signed residues modulo p.
        activation_reason: why that kind was chosen, in words, for people.

    Raises:
        UserError: the bound is not positive, the activation unknown, or the window none or larger than p.
    """

    name: str
    target: Target
    parameters: ParameterSet
    norm_bound: float
    predicted: dict[str, float] = field(default_factory=dict)
    tiling: dict[str, int] = field(default_factory=dict)
    reply_bits: ReplyBits | None = None
    activation: ActivationKind = "garbled"
    share_window: Interval | None = None
    activation_reason: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.norm_bound < math.inf:
            raise UserError(f"layer {self.name}: norm_bound {self.norm_bound}; expected a positive number")
        if self.activation not in get_args(ActivationKind):
            allowed = " or ".join(get_args(ActivationKind))
            raise UserError(f"layer {self.name}: activation {self.activation!r}; expected {allowed}")
        try:
            size, p = self.window.size if self.window else 1, self.parameters.plaintext_modulus
        except UserError as error:
            raise UserError(f"layer {self.name}: share_window {error}") from None
        if p % size:
            raise UserError(
                f"layer {self.name}: share_window of {size} integers modulo {p}; expected p = 2^k of at least as many"
            )

    @property
    def window(self) -> Window | None:
        """`share_window`; None where the activations read all bits of the shares."""
        return Window.between(self.share_window) if self.share_window else None

    def as_json(self) -> dict[str, Any]:
        """The layer as it stands in a policy file."""
        return {
            "name": self.name,
            "target": asdict(self.target),
            "parameters": self.parameters.as_json(),
            "norm_bound": self.norm_bound,
            "tiling": self.tiling,
            "reply_bits": asdict(self.reply_bits) if self.reply_bits else None,
            "activation": self.activation,
            "share_window": list(self.share_window) if self.share_window else None,
            "activation_reason": self.activation_reason,
            "predicted": self.predicted,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LayerPolicy:
        """The inverse of `as_json`, with every check of target and parameters."""
        bits, window = value.get("reply_bits"), value.get("share_window")
        return cls(
            value["name"],
            Target(**value["target"]),
            ParameterSet.from_json(value["parameters"]),
            float(value["norm_bound"]),
            value.get("predicted", {}),
            {name: int(size) for name, size in value["tiling"].items()},
            ReplyBits(int(bits["c0"]), int(bits["c1"])) if bits else None,
            value.get("activation", "garbled"),
            (int(window[0]), int(window[1])) if window else None,
            str(value.get("activation_reason", "")),
        )


@dataclass(frozen=True)
class TriplePolicy:
    """The parameters of the Beaver triples that squared activations take (`he.bfv.triples`).

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
        triples: of the squared activations, where the network has such and does not look them up.
        output: what a client learns of an image.
        commitment: binds the policy to the integer network that it was made for; None leaves it unbound.
        tree_bits: of the trees that oblivious transfers come from (`ot.trees`); None takes that room's default.
        silent_table_bits: log2 of the table's rows of silent transfers for lookups (`ot.silent_parameters`); None
            extends them.

    Raises:
        UserError: the output is unknown, or a name not printable.
    """

    network: str
    scheme: str
    packing: str
    flooding: Flooding
    layers: tuple[LayerPolicy, ...]
    predicted: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    triples: TriplePolicy | None = None
    output: Output = "logits"
    commitment: NetworkCommitment | None = None
    tree_bits: int | None = None
    silent_table_bits: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("network", self.network), ("scheme", self.scheme), ("packing", self.packing)):
            # they reach terminals and logs, those of clients among them
            if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAXIMUM_NAME:
                raise UserError(f"policy: {name}: expected 1 to {MAXIMUM_NAME} printable characters")
        check_output(self.output)

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
        """What the layers' plaintext moduli, ignored share bits and windows mean for the nodes of the network.

        Raises:
            UserError: values meet that have different moduli.
        """
        self.check_layers([layer.name for layer in architecture.layers])
        moduli = {layer.name: layer.parameters.plaintext_modulus for layer in self.layers}
        ignored = {layer.name: layer.target.ignored_share_bits for layer in self.layers}
        windows = {layer.name: window for layer in self.layers if (window := layer.window)}
        try:
            return Residues.of(architecture, moduli, ignored, windows)
        except UserError as error:
            raise UserError(f"policy {self.scheme} of {self.network}: {error}") from None

    def activation_kinds(self, architecture: Architecture) -> dict[str, ActivationKind]:
        """How each activation is computed: by lookup where all layers that decide it say so, and some layer does.

        What no layer feeds is looked up where it has no circuit: tables, and squares without triples.
        """
        kinds: dict[str, ActivationKind] = {}
        for node in architecture.activations:
            said = {self.layer(name).activation for name in architecture.deciding_layers(node)}
            looked_up = said == {"lookup"} if said else node.table or (node.squared and self.triples is None)
            kinds[node.name] = "lookup" if looked_up else "garbled"
        return kinds

    def check_layers(self, names: list[str]) -> None:
        """UserError unless the policy has exactly these layers, in this order."""
        got = [layer.name for layer in self.layers]
        if got != names:
            raise UserError(f"policy {self.scheme} of {self.network}: layers {got}; the network has {names}")

    @property
    def approximate(self) -> bool:
        """Whether outputs may differ from the integer network's: a rate or tau above 2^-40's, or ignored share bits."""
        targets = [entry.target for entry in self.evaluations]
        return any(target.z < EXACT_TARGET.z or target.ignored_share_bits > 0 for target in targets)

    def check_network(self, network: IntegerNetwork) -> None:
        """UserError unless the policy was made for this network: its layers, its commitment, its norm bounds."""
        where = f"policy {self.scheme} of {self.network}"
        self.check_layers([shape.name for shape in network.architecture.layers])
        if self.commitment is not None and not self.commitment.matches(network):
            raise UserError(
                f"{where}: made for another network: weights, shapes, shifts or ranges differ; choose this network's "
                "parameters, or serve the network that the policy was made for"
            )
        check_norms(network, {layer.name: layer.norm_bound for layer in self.layers}, where)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a server's owner has to know before it is served, a sentence each; docs/security.md explains them."""
        found = []
        if self.approximate:
            advice = "" if self.output == "label" else "; give the label alone, or trust the clients, and limit images"
            found.append(
                "the policy is approximate: outputs differ at random from the integer network's, and a client that "
                f"repeats queries learns weights from the differences{advice}"
            )
        if self.flooding.kind == "none":
            found.append("the policy floods nothing: a client computes the weights from the noise of replies")
        elif self.flooding.kind == "statistical" and self.flooding.kappa < SAFE_KAPPA:
            found.append(
                f"the policy floods with {self.flooding.kappa} bits: fewer than {SAFE_KAPPA} hide weights badly"
            )
        if self.commitment is None:
            found.append("the policy is bound to no network: nothing tells whether its ranges are this network's")
        return tuple(found)

    def essence(self) -> dict[str, Any]:
        """What the two parties must agree on, JSON-able, and all that a client is sent.

        Predictions, reasons, provenance and commitment are left out: they tell more of the weights than the norm bounds
        do, or how fast this machine is.
        """
        layers = tuple(replace(layer, predicted={}, activation_reason="") for layer in self.layers)
        triples = replace(self.triples, predicted={}) if self.triples else None
        bare = replace(self, layers=layers, triples=triples, predicted={}, provenance={}, commitment=None)
        return bare.as_json()

    def as_json(self) -> dict[str, Any]:
        """The policy as a JSON-able value."""
        return {
            "format": FORMAT_VERSION,
            "network": self.network,
            "scheme": self.scheme,
            "packing": self.packing,
            "flooding": asdict(self.flooding),
            "output": self.output,
            "approximate": self.approximate,
            "commitment": self.commitment.as_json() if self.commitment else None,
            "tree_bits": self.tree_bits,
            "silent_table_bits": self.silent_table_bits,
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
                raise UserError(
                    f"{where}: policy format {value['format']}; expected {FORMAT_VERSION}, which has norm "
                    "bounds; choose the network's parameters again (snakemake --forcerun select_parameters search)"
                )
            policy = cls(
                value["network"],
                value["scheme"],
                value["packing"],
                Flooding(**value["flooding"]),
                tuple(LayerPolicy.from_json(layer) for layer in value["layers"]),
                value.get("predicted", {}),
                value.get("provenance", {}),
                TriplePolicy.from_json(value["triples"]) if value.get("triples") is not None else None,
                value.get("output", "logits"),
                NetworkCommitment.from_json(value["commitment"]) if value.get("commitment") is not None else None,
                *(_optional_number(value.get(key)) for key in ("tree_bits", "silent_table_bits")),
            )
            if value.get("approximate", policy.approximate) != policy.approximate:
                raise UserError(
                    f"{where}: approximate is {json.dumps(value['approximate'])}, but by its targets the policy is "
                    f"{'approximate' if policy.approximate else 'exact'}; leave the entry out, or change the targets"
                )
            return policy
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}: not a policy: {type(error).__name__} {error}; docs/parameters.md has the format"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read and check a policy file; UserError names what is wrong, every parameter set is checked for security."""
        return cls.from_json(read_json(path), str(path))


def _optional_number(value: Any) -> int | None:
    return None if value is None else int(value)
