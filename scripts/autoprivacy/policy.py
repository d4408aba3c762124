"""The policy file: for every linear layer its target, parameter set and prediction. Every scheme writes one, `measure`
reads it, and a person can write one by hand and gets it checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.he.parameters import Flooding, ParameterSet, Target
from autoprivacy.storage import read_json, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LayerPolicy:
    """One layer's target and parameter set, and what was predicted for it (numbers by name, seconds and bytes)."""

    name: str
    target: Target
    parameters: ParameterSet
    predicted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """The parameters of a whole network."""

    network: str
    scheme: str
    packing: str
    flooding: Flooding
    layers: tuple[LayerPolicy, ...]
    predicted: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def layer(self, name: str) -> LayerPolicy:
        """The policy of the layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    @property
    def plaintext_modulus(self) -> int:
        """The one plaintext modulus of the network; UserError when its layers have several."""
        moduli = {layer.parameters.plaintext_modulus for layer in self.layers}
        if len(moduli) != 1:
            raise UserError(f"policy {self.scheme} of {self.network}: plaintext moduli {sorted(moduli)}; expected one")
        return moduli.pop()

    def check_layers(self, names: list[str]) -> None:
        """UserError unless the policy has exactly these layers, in this order."""
        got = [layer.name for layer in self.layers]
        if got != names:
            raise UserError(f"policy {self.scheme} of {self.network}: layers {got}; the network has {names}")

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(
            path,
            {
                "format": FORMAT_VERSION,
                "network": self.network,
                "scheme": self.scheme,
                "packing": self.packing,
                "flooding": {"kind": self.flooding.kind, "kappa": self.flooding.kappa},
                "predicted": self.predicted,
                "layers": [
                    {
                        "name": layer.name,
                        "target": {
                            "decryption_error_rate": layer.target.decryption_error_rate,
                            "tau": layer.target.tau,
                            "ignored_share_bits": layer.target.ignored_share_bits,
                        },
                        "parameters": layer.parameters.as_json(),
                        "predicted": layer.predicted,
                    }
                    for layer in self.layers
                ],
                "provenance": self.provenance,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read and check a policy file; UserError says what is wrong, every parameter set is checked for security."""
        value = read_json(path)
        try:
            if value["format"] != FORMAT_VERSION:
                raise UserError(f"{path}: policy format {value['format']}; expected {FORMAT_VERSION}")
            layers = tuple(
                LayerPolicy(
                    layer["name"],
                    Target(**layer["target"]),
                    ParameterSet.from_json(layer["parameters"]),
                    layer.get("predicted", {}),
                )
                for layer in value["layers"]
            )
            return cls(
                value["network"],
                value["scheme"],
                value["packing"],
                Flooding(**value["flooding"]),
                layers,
                value.get("predicted", {}),
                value.get("provenance", {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a policy: {type(error).__name__} {error}; docs/policy.md has the form") from None
