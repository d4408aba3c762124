"""Choose one network's parameters by rule: delphi (as published) or darl (2^-40, average case, calibrated p)."""

from typing import Any

from autoprivacy.gc.activation import MAXIMUM_MODULUS_BITS
from autoprivacy.he.latency import Link
from autoprivacy.he.packing import packing_named
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.plaintext import Kind, cheapest_policy, plaintext_moduli
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.selection import darl, delphi, plaintext_modulus
from autoprivacy.logs import run_script
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range
from autoprivacy.storage import read_rows


def main(snakemake: Any) -> None:
    settings, files, name = snakemake.params.selection, snakemake.input, snakemake.wildcards.network
    network, profile = IntegerNetwork.load(files.network), OperationProfile.load(files.profile)
    flooding, link = Flooding(settings["flooding"], settings["kappa"]), Link(**settings["link"])
    required = minimum, maximum = required_range(read_rows(files.layers))
    packing = packing_named(snakemake.wildcards.packing)
    if snakemake.wildcards.scheme == "delphi":
        policy = delphi(network, name, required, flooding, profile, link, packing.name)
    else:
        # coefficient packing asks nothing of p; a prime == 1 mod 2^13 has the short circuit for its reduction
        degree = max(profile.degrees) if packing.in_slots else 4096
        p = plaintext_modulus(maximum, minimum, settings["plaintext_bits"], degree_for_batching=degree)
        kind: Kind = settings["plaintext_factors"] if packing.in_slots else "single"
        moduli = plaintext_moduli(kind, p, required, profile.degrees, MAXIMUM_MODULUS_BITS)
        policy = cheapest_policy(
            moduli, lambda modulus: darl(network, name, modulus, flooding, profile, link, packing=packing.name)
        )
    policy.save(snakemake.output[0])


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
