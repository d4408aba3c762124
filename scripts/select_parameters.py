"""Choose one network's parameters by rule: delphi (as published) or darl (2^-40, average case, calibrated p)."""

import logging
from typing import Any

from autoprivacy.costs import predicted_seconds, with_garbling
from autoprivacy.errors import UserError
from autoprivacy.he.encoding import MAXIMUM_PLAINTEXT_BITS
from autoprivacy.he.latency import Link
from autoprivacy.he.packing import Packing, packing_named
from autoprivacy.he.parameters import Flooding
from autoprivacy.he.profiling import OperationProfile
from autoprivacy.he.selection import darl, delphi, plaintext_modulus
from autoprivacy.logs import run_script
from autoprivacy.policy import Policy
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.quantization.quantize import required_range
from autoprivacy.storage import read_rows


def main(snakemake: Any) -> None:
    settings, files, name = snakemake.params.selection, snakemake.input, snakemake.wildcards.network
    network, profile = IntegerNetwork.load(files.network), OperationProfile.load(files.profile)
    flooding, link = Flooding(settings["flooding"], settings["kappa"]), Link(**settings["link"])
    required = required_range(read_rows(files.layers))
    packing = packing_named(snakemake.wildcards.packing)
    if snakemake.wildcards.scheme == "delphi":
        policy = delphi(network, name, required, flooding, profile, link, packing.name)
        with_garbling(policy, network.architecture, profile, link).save(snakemake.output[0])
        return
    policies: list[Policy] = []
    for p in _moduli(required, settings["plaintext_bits"], profile, packing):
        try:
            policy = darl(network, name, p, flooding, profile, link, packing=packing.name)
        except UserError as error:  # of the smallest p it is the user's to know, of others no matter
            if not policies:
                raise
            logging.info("%s", error)
            continue
        policies.append(with_garbling(policy, network.architecture, profile, link))
        logging.info("p = %d: %.3f s predicted", p, predicted_seconds(policies[-1]))
    min(policies, key=predicted_seconds).save(snakemake.output[0])


def _moduli(required: tuple[int, int], bits: int | None, profile: OperationProfile, packing: Packing) -> list[int]:
    """The plaintext moduli worth comparing: the smallest that hold the range, and a prime of one bit more.

    A power of two has the shortest circuit, but slots need a prime; among primes one of more bits may be the better.
    """
    minimum, maximum = required
    # coefficient packing asks nothing of p; a prime == 1 mod 2^13 has the short circuit for its reduction
    degree = max(profile.degrees) if packing.in_slots else 4096
    moduli = [plaintext_modulus(maximum, minimum, bits, degree)]
    if not packing.in_slots:
        moduli.append(plaintext_modulus(maximum, minimum, bits, power_of_two=True))
    more = moduli[0].bit_length() + 1
    if bits is None and more <= MAXIMUM_PLAINTEXT_BITS:
        moduli.append(plaintext_modulus(maximum, minimum, more, degree))
    return moduli


run_script(main, snakemake)  # type: ignore[name-defined]  # noqa: F821
