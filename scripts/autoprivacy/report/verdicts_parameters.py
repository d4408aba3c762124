"""Verdicts on the paper's claims about n, p and q: security, rules, what they depend on, patterns over layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprivacy.report.claims import NONE, NOT_REPRODUCED, QUALITATIVELY, REPRODUCED, Outcome, worst_and_best
from autoprivacy.report.evidence import AUTOPRIVACY, PAPERS_PACKING, Evidence, NotTestedError, Row
from autoprivacy.report.results import ResultFile
from autoprivacy.report.tables import parameters_rows
from autoprivacy.report.text import extent, points, power_of_two

Values = Mapping[str, Any]
SMALL_CHANGE = 3.0  # bits of q that count as no change
RESIDUE_BITS = 8  # |q mod p| of no more bits is "about 1"
MOST = 0.75  # share of pairs of layers in which a pattern shows
OBVIOUS_SAVING = 10.0  # bits of q: what no coincidence of rounding gives
# q = 2^k - c is pseudo-Mersenne where c has at most this share of q's bits.
MERSENNE_SHARE = 0.5


def security(evidence: Evidence, values: Values) -> Outcome:
    """Of every policy of the study, and of the paper's Table 1 as printed."""
    rows = [row for policy in evidence.policies for row in parameters_rows([policy])]
    found = [row["security_bits"] for row in rows if row["security_bits"] is not None]
    printed = {row["system"]: row for row in evidence.need("published") if row["reading"] == "as printed"}
    insecure = [name for name, row in printed.items() if row["secure"] != "True"]
    wanted = values["bits"]
    if not found:
        raise NotTestedError("no policy states its security")
    ours = min(found) >= wanted
    return Outcome(
        REPRODUCED if ours and not insecure else NOT_REPRODUCED,
        "Every set of this study and Table 1's as printed reach 128 bits, every prime counted."
        if ours and not insecure
        else f"Below 128 bits: {', '.join(insecure) or 'a policy of this study'}.",
        f"{min(found):.0f} bits at least in {len(found)} layers' sets",
        "; ".join(f"{name} as printed {float(row['security_bits']):.0f}" for name, row in printed.items()),
        f"{points(min(found) - wanted)} bits",
        "published-sets.csv",
    )


def base_secure(evidence: Evidence, values: Values) -> Outcome:
    """Figure 3's base point."""
    for row in evidence.need("multiplication"):
        if (row["polynomial_degree"], row["log2_q"]) == (1 << values["log2_n"], values["log2_q"]):
            bits, secure = float(row["security_bits"]), row["secure"] == "True"
            return Outcome(
                REPRODUCED if secure else NOT_REPRODUCED,
                f"log n = {values['log2_n']} and log q = {values['log2_q']} {'reach' if secure else 'do not reach'} "
                f"{values['bits']} bits under the MATZOV cost model.",
                f"{bits:.0f} bits",
                NONE,
                f"{points(bits - values['bits'])} bits",
                "multiplication.csv",
            )
    raise NotTestedError("Figure 3's base point was not timed")


def prior_error_rates(evidence: Evidence, values: Values) -> Outcome:
    """Table 1's sets as printed, without flooding, in the paper's packing: the worst layer of every network."""
    rows = [row for row in evidence.need("published") if row["reading"] == "as printed"]
    own = [row for row in rows if row["packing"] == PAPERS_PACKING] or rows
    rates = [float(row["rate_per_ciphertext"]) for row in own if row["rate_per_ciphertext"] != ""]
    missing = sorted({row["system"] for row in own if row["rate_per_ciphertext"] == ""})
    if not rates:
        raise NotTestedError("no rate of a published set could be computed")
    near = all(rate > 0 and abs(math.log2(rate) - values["log2_rate"]) <= 10 for rate in rates)
    largest = max(rates)
    text = power_of_two(largest) if largest else "a rate below what a double holds"
    return Outcome(
        REPRODUCED if near and not missing else NOT_REPRODUCED,
        "q of 165 and 180 bits leaves so much room that nothing ever decrypts wrongly"
        + (
            f"; {', '.join(missing)}: no prime p of 14 bits is 1 mod 2n at n = 2^13, so its set cannot batch."
            if missing
            else "."
        ),
        f"at most {text} per ciphertext",
        f"{len(rates)} networks and systems",
        f"from {power_of_two(2.0 ** values['log2_rate'])}",
        "published-sets.csv",
    )


def _varied(evidence: Evidence, kind: str, packing: str, flooding: str) -> list[Row]:
    return [
        row
        for row in evidence.need("sensitivity")
        if (row["kind"], row["packing"], row["flooding"]) == (kind, packing, flooding) and row["log2_q"] != ""
    ]


def _packings(evidence: Evidence) -> list[str]:
    found = dict.fromkeys(str(row["packing"]) for row in evidence.need("sensitivity"))
    return sorted(found, key=lambda packing: packing != PAPERS_PACKING)


def _insensitive(evidence: Evidence, kind: str, below: float = math.inf) -> Outcome:
    """Whether n stays and q moves by few bits, without flooding, over the levels below a bound."""
    changes, degrees, told = [], [], []
    for packing in _packings(evidence):
        rows = [row for row in _varied(evidence, kind, packing, "none") if row["level"] < below]
        if not rows:
            continue
        bits = [float(row["log2_q"]) for row in rows]
        n = sorted({int(float(row["polynomial_degree"])) for row in rows})
        changes.append(max(bits) - min(bits))
        degrees.append(len(n) == 1)
        size = extent(f"{min(bits):.0f}", f"{max(bits):.0f}")
        told.append(f"{packing}: log q {size}, n {', '.join(map(str, n))}")
    if not changes:
        raise NotTestedError(f"the layer's {kind} was not varied")
    if max(changes) <= SMALL_CHANGE and all(degrees):
        verdict, reason = REPRODUCED, "n stays and q moves by at most 3 bits."
    elif all(degrees):
        verdict, reason = QUALITATIVELY, "n stays, but q grows by more than 3 bits."
    else:
        verdict, reason = NOT_REPRODUCED, "q grows with the range of the accumulators until n has to grow too."
    return Outcome(verdict, reason, worst_and_best(changes, "bits of q"), "; ".join(told), NONE, "sensitivity.csv")


def kernel_size(evidence: Evidence, values: Values) -> Outcome:
    """Figure 4(a)."""
    return _insensitive(evidence, "kernel size")


def bit_width(evidence: Evidence, values: Values) -> Outcome:
    """Figure 4(b)."""
    return _insensitive(evidence, "bit width", values["below_bits"])


def error_rate(evidence: Evidence, values: Values) -> Outcome:
    """Figure 4(c), without flooding: bits of q between two rates, and whether a prime or n goes with them."""
    strict, loose = values["log2_rates"]
    told, saved, cheaper = [], [], []
    for packing in _packings(evidence):
        rows = {row["level"]: row for row in _varied(evidence, "error rate", packing, "none")}
        if strict not in rows or loose not in rows:
            continue
        saved.append(float(rows[strict]["log2_q"]) - float(rows[loose]["log2_q"]))
        seconds = [float(rows[level]["latency_seconds"]) for level in (strict, loose)]
        cheaper.append(100 * (1 - seconds[1] / seconds[0]))
        told.append(f"{packing}: {saved[-1]:.1f} bits, {cheaper[-1]:.0f}% of predicted latency")
    if not saved:
        raise NotTestedError("the error rate was not varied")
    verdict = NOT_REPRODUCED
    if min(saved) > 0:
        verdict = REPRODUCED if min(saved) > OBVIOUS_SAVING else QUALITATIVELY
    return Outcome(
        verdict,
        "q falls by the logarithm of the ratio of two quantiles of a Gaussian, less than two bits from 2^-40 to 2^-5; "
        "seconds follow where a prime or n goes with them.".replace("^-", "^\N{MINUS SIGN}"),
        worst_and_best(saved, "bits saved"),
        "; ".join(told).replace(" -", " \N{MINUS SIGN}"),
        f"from {power_of_two(2.0**strict)} to {power_of_two(2.0**loose)}",
        "sensitivity.csv",
    )


def five_rules(evidence: Evidence, values: Values) -> Outcome:
    """How many layers' sets of exact, measured policies follow each rule; those that follow fewer work as well."""
    counts = dict.fromkeys(
        ("n a power of two", "q = 1 mod n", "p = 1 mod n", "|q mod p| about 1", "q pseudo-Mersenne"), 0
    )
    total = 0
    for policy in evidence.policies_of("darl"):
        if policy.get("packing") != PAPERS_PACKING and evidence.policy(policy.network, "darl", PAPERS_PACKING):
            continue
        for layer in policy.get("layers"):
            total += 1
            for rule, holds in zip(counts, _rules(layer["parameters"]), strict=True):
                counts[rule] += holds
    exact = [
        file for file in evidence.measurements if file.scheme == "darl" and file.get("exact") and not _differing(file)
    ]
    needed = all(count == total for count in counts.values())
    if needed:
        verdict, reason = REPRODUCED, "Every set follows all five rules."
    else:
        verdict = NOT_REPRODUCED if exact else QUALITATIVELY
        reason = (
            "Batching takes p = 1 mod 2n and transforms take q = 1 mod 2n; encoding round(q m / p) makes the fourth "
            "rule needless, Montgomery and Barrett kernels the fifth: sets without them decrypt exactly."
        )
    return Outcome(
        verdict,
        reason,
        "; ".join(f"{rule}: {count} of {total}" for rule, count in counts.items()),
        f"{len(exact)} measurements without a wrong output",
        NONE,
        "tables/parameters.csv",
    )


def _differing(file: ResultFile) -> bool:
    return any(image["differing_outputs"] for image in file.get("images"))


def _rules(parameters: Mapping[str, Any]) -> tuple[bool, ...]:
    n, p, q = parameters["polynomial_degree"], parameters["plaintext_modulus"], math.prod(parameters["primes"])
    residue = min(q % p, p - q % p)
    distance = (1 << q.bit_length()) - q
    return (
        n & (n - 1) == 0,
        q % n == 1,
        p % n == 1,
        residue.bit_length() <= RESIDUE_BITS,
        distance.bit_length() <= MERSENNE_SHARE * q.bit_length(),
    )


def depthwise(evidence: Evidence, values: Values) -> Outcome:
    """Mean bits of q and mean log n of autoprivacy's depthwise layers against its pointwise ones."""
    policies = [p for p in evidence.policies_of(AUTOPRIVACY) if p.network in values["networks"]]
    if not policies:
        raise NotTestedError("no MobileNet-V2 has a policy of autoprivacy")
    differences, told = [], []
    for policy in policies:
        kinds = {row["name"]: int(row["groups"]) > 1 for row in evidence.quantization[policy.network]}
        rows = parameters_rows([policy])
        deep, point = ([row for row in rows if kinds[row["layer"]] is kind] for kind in (True, False))
        q, n = (
            _mean([value(row) for row in point]) - _mean([value(row) for row in deep])
            for value in (lambda row: row["log2_q"], lambda row: math.log2(row["polynomial_degree"]))
        )
        differences.append((q, n))
        told.append(f"{policy.network}, {policy.get('packing')}: {q:.1f} bits of q, {n:.2f} of log n")
    own = [d for d, policy in zip(differences, policies, strict=True) if policy.get("packing") == PAPERS_PACKING]
    judged = own or differences
    if all(q > SMALL_CHANGE and n > 0 for q, n in judged):
        verdict, reason = REPRODUCED, "Depthwise layers get smaller n and q."
    elif all(q > 0 and n >= 0 for q, n in judged):
        verdict, reason = QUALITATIVELY, "Depthwise layers get smaller q on average, the same n or a little less."
    else:
        verdict, reason = (
            NOT_REPRODUCED,
            "n and q follow least latency under the flood, not the number of accumulations.",
        )
    return Outcome(
        verdict,
        reason,
        worst_and_best([q for q, _ in judged], "bits of q less on average"),
        "; ".join(told).replace(" -", " \N{MINUS SIGN}"),
        NONE,
        f"figures/parameters-{policies[0].network}.svg",
    )


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise NotTestedError("a network without depthwise or without pointwise layers")
    return math.fsum(values) / len(values)


def residual_blocks(evidence: Evidence, values: Values) -> Outcome:
    """In every block of ten layers: whether the 2nd and 6th have less n and q than the 4th and 8th."""
    network, size = values["network"], values["block_layers"]
    policies = evidence.policies_of(AUTOPRIVACY, network)
    told, holds, equal = [], [], []
    for policy in policies:
        rows = parameters_rows([policy])[1:-1]  # without the first convolution and the fully connected layer
        blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
        pairs = [
            (block[small - 1], block[large - 1])
            for block in blocks
            for small in values["smaller"]
            for large in values["larger"]
        ]
        smaller = sum(_size(a) < _size(b) for a, b in pairs)
        equal.append(sum(_size(a) == _size(b) for a, b in pairs))
        holds.append(smaller / len(pairs))
        told.append(f"{policy.get('packing')}: {smaller} of {len(pairs)} pairs smaller, {equal[-1]} equal")
    share = holds[0]
    verdict = NOT_REPRODUCED
    if share >= MOST:
        verdict = REPRODUCED if share == 1 else QUALITATIVELY
    return Outcome(
        verdict,
        "Which layer gets more is the luck of rewards that cannot tell policies apart, or the sets are equal."
        if verdict == NOT_REPRODUCED
        else "The pattern shows.",
        f"{100 * share:.0f}% of the pairs",
        "; ".join(told),
        f"{points(100 * (share - 1))} points",
        f"figures/parameters-{network}.svg",
    )


def _size(row: Row) -> tuple[float, float]:
    return row["polynomial_degree"], round(row["log2_q"], 1)


RULES = {
    "security": security,
    "multiplication-base-secure": base_secure,
    "prior-error-rates": prior_error_rates,
    "kernel-size": kernel_size,
    "bit-width": bit_width,
    "error-rate": error_rate,
    "five-rules": five_rules,
    "depthwise": depthwise,
    "residual-blocks": residual_blocks,
}
