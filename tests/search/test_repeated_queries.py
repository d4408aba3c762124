"""Repeated queries: weights are recovered from approximate logits, and not from exact ones, scores or labels."""

from __future__ import annotations

import numpy as np
import pytest

from autoprivacy.search.repeated_queries import (
    MODULUS,
    SHIFT,
    Policy,
    Server,
    by_differences,
    by_regression,
    experiment,
)

SEED = 1


def test_ignored_share_bits_give_the_weights_away() -> None:
    found = by_regression(Server(32, 10, Policy(ignored_bits=SHIFT), SEED), 6, SEED)
    assert found["recovered"] >= 28 and found["wrong"] == 0 and found["distinct"] > 100


def test_tolerated_errors_alone_give_columns_away() -> None:
    found = by_differences(Server(64, 10, Policy(error_rate=2.0**-5), SEED), 40, SEED)
    assert found["recovered"] >= 3 and found["distinct"] > 1


@pytest.mark.parametrize("policy", [Policy(), Policy(SHIFT, output="label"), Policy(SHIFT, output="scores")])
def test_nothing_is_recovered_from_exact_logits_scores_or_labels(policy: Policy) -> None:
    found = by_regression(Server(32, 10, policy, SEED), 3, SEED)
    assert found["recovered"] == found["wrong"] == 0
    assert policy.ignored_bits or found["distinct"] == 1


def test_exact_answers_do_not_depend_on_shares() -> None:
    rng, server = np.random.default_rng(SEED), Server(32, 10, Policy(), SEED)
    values = rng.integers(-40_000, 40_000, 32)
    answers = server.answer(values, rng.integers(0, MODULUS, (200, 32)))
    assert (answers == answers[0]).all()


def test_the_summary_is_of_the_largest_layer() -> None:
    result = experiment((8, 16), 10, 2, SEED)
    assert len(result["rows"]) == 10 and result["queries"] == 2 * 160
    assert result["exact"] == {"weights": 160, "weights_recovered": 0}
    row = next(row for row in result["rows"] if row["hidden_values"] == 16 and row["policy"] == "ignored share bits")
    assert result["approximate"]["weights_recovered"] == 10 * row["recovered"] > 0
