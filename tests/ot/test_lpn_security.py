"""Security of the deployed parameters by every attack that is estimated, and the estimator where results are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoprivacy.ot.lpn_security import LpnInstance, costs, fewest_bits, pooled_gauss, security_bits
from autoprivacy.ot.silent_parameters import LOCALITY, SILENT_PARAMETERS, SilentParameters

BITS = 128
FIRSTS = {f"first for {bits}": SilentParameters.first(p.base) for bits, p in SILENT_PARAMETERS.items()}


@pytest.mark.parametrize("name", [*SILENT_PARAMETERS, *FIRSTS])
def test_every_deployed_instance_takes_more_than_128_bits(name: int | str) -> None:
    instance = {**SILENT_PARAMETERS, **FIRSTS}[name].instance
    assert instance.locality == LOCALITY and instance.samples > instance.secret
    assert security_bits(instance) >= BITS, costs(instance)


def test_fewer_errors_are_found_out() -> None:
    """2^18 secret bits in trees of 4096 leaves look safe to all attacks but those that know the code is local."""
    found = costs(LpnInstance(1 << 18, 1520, 12, LOCALITY))
    assert min(bits for attack, bits in found.items() if attack != "restricted") > BITS
    assert found["restricted"] < 100


# Sets that Ferret's authors publish for 128 bits (emp-ot, ferret/constants.h: t, k, log2 of a block), by the attacks
# that were known then.
@pytest.mark.parametrize(("blocks", "secret", "depth"), [(1280, 452000, 13), (2507, 238000, 12), (4971, 124000, 11)])
def test_published_sets_have_128_bits_by_older_attacks(blocks: int, secret: int, depth: int) -> None:
    found = costs(LpnInstance(secret, blocks, depth, LOCALITY))
    assert 128 < min(found["pooled Gauss"], found["regular decoding"]) < 136
    assert found["restricted"] < 80 and found["algebraic"] < 128


def test_pooled_gauss_counts_guesses() -> None:
    samples, secret, errors = 1024, 652, 64
    guesses = math.log2(math.comb(samples, errors) / math.comb(samples - secret, errors))
    assert pooled_gauss(LpnInstance(secret, errors, 4, LOCALITY)) == pytest.approx(2.8 * math.log2(secret) + guesses)


@pytest.mark.parametrize("ratio", [4, 12])
def test_no_set_of_secret_bits_holds_as_many_samples(ratio: int) -> None:
    """Leaving out the bit with the fewest samples over and over finds small sets, none below the bound."""
    secret, rng = 1 << 11, np.random.default_rng(ratio)
    rows = rng.integers(0, secret, (ratio * secret, LOCALITY))
    instance = LpnInstance(secret, ratio * secret >> 4, 4, LOCALITY)
    inside, columns = np.ones(len(rows), bool), np.ones(secret, bool)
    found = secret
    while inside.sum() >= columns.sum():
        found = int(columns.sum())
        counts = np.bincount(rows[inside].reshape(-1), minlength=secret)
        column = np.where(columns, counts, len(rows) * LOCALITY).argmin()
        columns[column] = False
        inside &= (rows != column).all(1)
    assert fewest_bits(instance) <= found < 0.8 * secret
    assert fewest_bits(instance) > 0.8 * found
