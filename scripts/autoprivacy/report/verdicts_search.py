"""Verdicts on the paper's claims about the search and the sampling of errors, and on what the paper adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoprivacy.report.claims import (
    CONTRADICTS,
    NONE,
    NOT_REPRODUCED,
    QUALITATIVELY,
    REPRODUCED,
    Outcome,
    worst_and_best,
)
from autoprivacy.report.evidence import AUTOPRIVACY, Evidence, NotTestedError, Row
from autoprivacy.report.paper_comparison import contradictions
from autoprivacy.report.results import BASELINE, ResultFile
from autoprivacy.report.strategy_comparison import summary_rows
from autoprivacy.report.text import extent, points, significant

Values = Mapping[str, Any]
SECONDS_PER_HOUR = 3600.0
LEARNED, RULES_BASED = "ddpg", ("uniform", "least_latency", "random")
ACCURATE = 0.1  # relative error of a rate that counts as knowing it: sigma-scaled sampling's at 10 million samples
ORDERS_APART = 1.0  # decades between two numbers that count as a contradiction


def search_time(evidence: Evidence, values: Values) -> Outcome:
    """Seconds recorded by the searches of autoprivacy; on a CPU, of the episodes and images that the study asks for."""
    found: list[tuple[ResultFile, float]] = [
        (policy, float(policy.provenance["search_seconds"]))
        for policy in evidence.policies_of(AUTOPRIVACY)
        if policy.provenance.get("search_seconds") is not None
    ]
    if not found:
        raise NotTestedError("no policy records how long its search took")
    hours = [seconds / SECONDS_PER_HOUR for _, seconds in found]
    wanted = values["hours"]
    episodes = [len(evidence.search.get((p.network, p.scheme, p.get("packing")), ())) for p, _ in found]
    return Outcome(
        REPRODUCED if max(hours) <= wanted else NOT_REPRODUCED,
        "A search takes less than the paper's hours, without a GPU, with fewer episodes and images to finetune with."
        if max(hours) <= wanted
        else "A search takes longer than the paper's.",
        worst_and_best(hours, "hours"),
        f"{len(found)} searches of {extent(str(min(episodes)), str(max(episodes)))} episodes",
        f"{significant(max(hours) / wanted)} of the paper's at most",
        "tables/table3.csv",
    )


def search_space(evidence: Evidence, values: Values) -> Outcome:
    """The formula with the paper's own numbers against its printed size, and the size of this study's spaces."""
    computed = values["layers"] * math.log10(values["rates"] * values["sets"])
    low, high = values["action_exponents"]
    rates = high - low + 1
    sizes = {policy.network: len(policy.get("layers")) * math.log10(rates) for policy in _searched(evidence)}
    apart = abs(computed - values["printed_log10"]) > ORDERS_APART or rates != values["rates"]
    return Outcome(
        CONTRADICTS if apart else REPRODUCED,
        f"(20 x 5)^8 is 10^{computed:.0f}, not about 10^{values['printed_log10']}; exponents {low} to {high} are "
        f"{rates} rates, not {values['rates']}; and a rate determines the set, so S is no factor."
        if apart
        else "The formula gives the printed size.",
        "; ".join(f"{name}: 10^{size:.0f}" for name, size in sizes.items()) or f"10^{computed:.0f}",
        f"{rates} rates per layer",
        f"{computed - values['printed_log10']:+.0f} orders of magnitude in the paper",
        "tables/parameters.csv",
    )


def _searched(evidence: Evidence) -> list[ResultFile]:
    return [policy for policy in evidence.policies if policy.scheme == AUTOPRIVACY]


def _sampling(evidence: Evidence, method: str, target: int) -> list[Row]:
    rows = [
        row
        for row in evidence.need("sampling")
        if (row["method"], row["target"]) == (method, target) and row["samples"] > 0 and row["relative_error"] != ""
    ]
    if not rows:
        raise NotTestedError(f"{method} at 2^-{target} was not studied")
    return rows


def monte_carlo(evidence: Evidence, values: Values) -> Outcome:
    """Samples after which counting knows the rate within a tenth, extrapolated by the root of their number."""
    rows = _sampling(evidence, "brute force", -values["log2_rate"])
    needed = [row["samples"] * (float(row["relative_error"]) / ACCURATE) ** 2 for row in rows]
    best = needed[[row["samples"] for row in rows].index(max(row["samples"] for row in rows))]
    bits, wanted = math.log2(best), values["log2_runs"]
    return Outcome(
        REPRODUCED if bits >= wanted else NOT_REPRODUCED,
        f"Counting errors of a rate of 2^{values['log2_rate']} within 10% takes 100 / rate runs; the exact tail of the "
        "Gaussian takes none.".replace("^-", "^\N{MINUS SIGN}"),
        f"2^{bits:.1f} runs",
        f"2^{math.log2(min(needed)):.1f} to 2^{math.log2(max(needed)):.1f} by the number of samples measured",
        f"2^{wanted - bits:.1f} times fewer" if bits < wanted else f"2^{bits - wanted:.1f} times more",
        f"figures/sampling-{_first_network(evidence)}.svg",
    )


def scaled_sampling(evidence: Evidence, values: Values) -> Outcome:
    """The error of sigma-scaled estimates at the most samples studied, and counting's beside it."""
    target = -values["log2_rate"]
    scaled = max(_sampling(evidence, "sigma-scaled", target), key=lambda row: float(row["samples"]))
    counted = max(_sampling(evidence, "brute force", target), key=lambda row: float(row["samples"]))
    own, other = float(scaled["relative_error"]), float(counted["relative_error"])
    # errors fall with the root of the number of samples
    at_papers = own * math.sqrt(scaled["samples"] / values["samples"])
    knows = at_papers <= ACCURATE
    return Outcome(
        REPRODUCED if knows else NOT_REPRODUCED,
        "10 million samples know the rate within 10%, and counting as many does as well: scaling saves nothing there."
        if knows
        else "The estimate is further off than a tenth at 10 million samples.",
        f"{100 * at_papers:.0f}% error at 10^7 samples",
        f"{100 * own:.0f}% measured at {scaled['samples']:.0e} samples; counting {100 * other:.0f}%",
        NONE,
        f"figures/sampling-{_first_network(evidence)}.svg",
    )


def _first_network(evidence: Evidence) -> str:
    return next(iter(evidence.quantization))


def learned_policy(evidence: Evidence, values: Values) -> Outcome:
    """DDPG beside strategies without learning, on the same problem with the same number of policies."""
    rows = summary_rows(evidence.need("comparison"))
    told, better = [], []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = {row["strategy"]: row for row in rows if row["network"] == network}
        others = [own[name] for name in RULES_BASED if name in own]
        if LEARNED not in own or not others:
            continue
        fastest = min(others, key=lambda row: float(row["latency_seconds"]))
        learned = own[LEARNED]
        gain = 100 * (1 - learned["latency_seconds"] / fastest["latency_seconds"])
        spread = learned["latency_seconds_deviation"] + fastest["latency_seconds_deviation"]
        better.append((gain, fastest["latency_seconds"] - learned["latency_seconds"] > spread))
        told.append(
            f"{network}: {LEARNED} {significant(learned['latency_seconds'])} \N{PLUS-MINUS SIGN} "
            f"{significant(learned['latency_seconds_deviation'])} s, {fastest['strategy']} "
            f"{significant(fastest['latency_seconds'])} s"
        )
    if not better:
        raise NotTestedError("no comparison has the learning agent and a strategy by rule")
    if all(clearly for _, clearly in better):
        verdict, reason = REPRODUCED, "The agent's policies are faster at no clear loss."
    elif all(gain > 0 for gain, _ in better):
        verdict, reason = QUALITATIVELY, "The agent's policies are a little faster, within the spread over seeds."
    else:
        verdict = NOT_REPRODUCED
        reason = (
            "The agent is rewarded by accuracies that the images cannot tell apart, and a rule finds faster policies."
        )
    return Outcome(
        verdict,
        reason,
        worst_and_best([gain for gain, _ in better], "% less predicted latency"),
        "; ".join(told),
        f"{points(min(gain for gain, _ in better))}%",
        "tables/search-comparison.csv",
    )


def row_sum(evidence: Evidence, values: Values) -> Outcome:
    """The sums of the paper's rows."""
    found = contradictions(evidence.paper, list(evidence.paper["table2"]))
    rows = sum(len(schemes) for schemes in evidence.paper["table2"].values())
    return Outcome(
        CONTRADICTS if found else REPRODUCED,
        " ".join(found) or "Every row adds up.",
        f"{rows - len(found)} of {rows} rows add up",
        _cuts_of_7cnet(evidence.paper) if found else NONE,
        NONE,
        "tables/table2.csv",
    )


def _cuts_of_7cnet(paper: Mapping[str, Any]) -> str:
    row, base = (paper["table2"]["7cnet"][scheme] for scheme in (AUTOPRIVACY, BASELINE))
    parts = row["t_pre_seconds"] + row["t_on_seconds"]
    by_parts, printed = (100 * (1 - seconds / base["t_total_seconds"]) for seconds in (parts, row["t_total_seconds"]))
    return f"by 7CNET's parts the cut would be {by_parts:.0f}%, by its printed total it is {printed:.0f}%"


RULES = {
    "search-time": search_time,
    "search-space": search_space,
    "monte-carlo": monte_carlo,
    "scaled-sampling": scaled_sampling,
    "learned-policy": learned_policy,
    "row-sum": row_sum,
}
