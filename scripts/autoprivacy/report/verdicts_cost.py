"""Verdicts on the paper's claims about seconds and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoprivacy.report import tables
from autoprivacy.report.claims import NOT_REPRODUCED, QUALITATIVELY, REPRODUCED, Outcome, worst_and_best
from autoprivacy.report.evidence import AUTOPRIVACY, PAPERS_PACKING, Evidence, NotTestedError, Row
from autoprivacy.report.results import BASELINE, ResultFile
from autoprivacy.report.text import extent, fixed, less, points, significant

Values = Mapping[str, Any]
WITHIN = 0.1  # a measured factor this close to the paper's, as a share of it, reproduces it
SHARE_POINTS = 5.0  # and a share of time this close, in points
CLEAR_CUT = 5.0  # percent below which a cut is no reduction that a user would notice


def _cut(new: float, old: float) -> float:
    return 100 * (1 - new / old)


def _cases(pairs: Sequence[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    """The pairs in the paper's packing; all where it was not measured."""
    own = [pair for pair in pairs if pair[0]["packing"] == PAPERS_PACKING]
    return own or list(pairs)


def _listed(pairs: Sequence[tuple[Row, Row]], of: Callable[[Row, Row], float]) -> str:
    return "; ".join(f"{row['network']}, {row['packing']} {of(row, base):.0f}%" for row, base in pairs).replace(
        "-", "\N{MINUS SIGN}"
    )


def _range_verdict(cuts: Sequence[float], low: float, high: float) -> str:
    if all(low <= cut <= high for cut in cuts):
        return REPRODUCED
    return QUALITATIVELY if min(cuts) >= CLEAR_CUT else NOT_REPRODUCED


def latency_cut(evidence: Evidence, values: Values) -> Outcome:
    """By t_total of Table 2, in the paper's packing."""
    pairs = evidence.pairs()
    cuts = [_cut(row["t_total_seconds"], base["t_total_seconds"]) for row, base in _cases(pairs)]
    low, high = values["smallest_percent"], values["largest_percent"]
    verdict = _range_verdict(cuts, low, high)
    reasons = {
        REPRODUCED: "every network's cut lies in the paper's range",
        QUALITATIVELY: "latency falls in every network, but not by the paper's share",
        NOT_REPRODUCED: (
            "at equal plaintext modulus and flooding, tolerated error rates save a bit or two of q, which seldom saves "
            "a prime, and seconds follow primes"
        ),
    }
    return Outcome(
        verdict,
        f"In {_cases(pairs)[0][0]['packing']} packing, {reasons[verdict]}.",
        worst_and_best(cuts, "% less"),
        _listed(pairs, lambda row, base: _cut(row["t_total_seconds"], base["t_total_seconds"])),
        f"{points(min(cuts) - low)} and {points(max(cuts) - high)} points from {low}% and {high}%",
    )


def traffic_cut(evidence: Evidence, values: Values) -> Outcome:
    """By m_total of Table 2, in the paper's packing."""
    pairs = evidence.pairs()
    cuts = [_cut(row["m_total_bytes"], base["m_total_bytes"]) for row, base in _cases(pairs)]
    low, high = values["smallest_percent"], values["largest_percent"]
    verdict = _range_verdict(cuts, low, high)
    reasons = {
        REPRODUCED: "every network's cut lies in the paper's range",
        QUALITATIVELY: "bytes fall in every network, but not by the paper's share",
        NOT_REPRODUCED: "garbled tables and transfers, which HE parameters touch only through p, are most of the bytes",
    }
    return Outcome(
        verdict,
        f"In {_cases(pairs)[0][0]['packing']} packing, {reasons[verdict]}.",
        worst_and_best(cuts, "% less"),
        _listed(pairs, lambda row, base: _cut(row["m_total_bytes"], base["m_total_bytes"])),
        f"{points(min(cuts) - low)} and {points(max(cuts) - high)} points from {low}% and {high}%",
    )


def phase_cuts(evidence: Evidence, values: Values) -> Outcome:
    """Offline and online seconds apart."""
    pairs = [pair for pair in _cases(evidence.pairs()) if pair[0]["network"] == values["network"]]
    if not pairs:
        raise NotTestedError(f"{values['network']} was not measured under both schemes")
    row, base = pairs[0]
    cuts = [_cut(row[f"{time}_seconds"], base[f"{time}_seconds"]) for time in ("t_pre", "t_on")]
    wanted = [values["offline_percent"], values["online_percent"]]
    differences = [cut - want for cut, want in zip(cuts, wanted, strict=True)]
    if all(abs(difference) <= SHARE_POINTS for difference in differences):
        verdict = REPRODUCED
    else:
        verdict = QUALITATIVELY if min(cuts) >= CLEAR_CUT else NOT_REPRODUCED
    return Outcome(
        verdict,
        "Online work is garbled circuits and linear layers in clear, which HE parameters change only through p.",
        f"offline {less(cuts[0])}, online {less(cuts[1])}",
        f"{row['network']}, {row['packing']} packing, {row['network_setting']}",
        f"{points(differences[0])} and {points(differences[1])} points",
    )


def he_share(evidence: Evidence, values: Values) -> Outcome:
    """By CPU seconds of both parties under DELPHI's set, offline and online together."""
    files = _of_baseline(evidence.measurements)
    shares = [tables.he_share_percent(file) for file in files]
    wanted = values["percent"]
    own = [share for share, file in zip(shares, files, strict=True) if file.get("packing") == PAPERS_PACKING] or shares
    if all(abs(share - wanted) <= SHARE_POINTS for share in own):
        verdict, reason = REPRODUCED, "HE takes the paper's share of DELPHI's work."
    elif min(own) > 50:
        verdict, reason = QUALITATIVELY, "HE is most of DELPHI's work, but not by the paper's share."
    else:
        verdict, reason = NOT_REPRODUCED, "With products in NTT form HE is no longer most of the work; circuits are."
    return Outcome(
        verdict,
        reason,
        worst_and_best(own, "%"),
        "; ".join(
            f"{file.network}, {file.get('packing')} {share:.0f}%" for file, share in zip(files, shares, strict=True)
        ),
        f"{extent(points(min(own) - wanted), points(max(own) - wanted))} points",
        "figures/breakdown.svg",
    )


def _at_least(value: float, wanted: float, direction: float) -> str:
    """The verdict on a number that is to reach the paper's, and at least to exceed `direction`."""
    if value >= wanted:
        return REPRODUCED
    return QUALITATIVELY if value > direction else NOT_REPRODUCED


def _of_baseline(measurements: Sequence[ResultFile]) -> list[ResultFile]:
    """One measurement of the baseline per network and packing: work is the same under every network setting."""
    found = {(file.network, file.get("packing")): file for file in reversed(measurements) if file.scheme == BASELINE}
    if not found:
        raise NotTestedError(f"{BASELINE} was not measured")
    return list(reversed(found.values()))


def multiplication_growth(evidence: Evidence, values: Values) -> Outcome:
    """By SEAL's own multiplication, which the paper used; our kernels stand beside it."""
    rows = evidence.need("multiplication")
    small, large = zip(values["log2_n"], values["log2_q"], strict=True)
    factors: dict[str, tuple[float, float, float]] = {}
    for name in dict.fromkeys(row["implementation"] for row in rows):
        old, new = (_point(rows, name, *point) for point in (small, large))
        factors[name] = (
            new["seconds_median"] / old["seconds_median"],
            new["seconds_lower_quartile"] / old["seconds_upper_quartile"],
            new["seconds_upper_quartile"] / old["seconds_lower_quartile"],
        )
    factor, low, high = factors["SEAL"]
    wanted = values["factor"]
    if low * (1 - WITHIN) <= wanted <= high * (1 + WITHIN):
        verdict, reason = (
            REPRODUCED,
            "Twice the terms and 1.5 times the primes are three times the work, and a longer transform.",
        )
    else:
        verdict = QUALITATIVELY if factor > 2 else NOT_REPRODUCED
        reason = "The growth differs from the paper's; caches and the transform's log n decide by how much."
    others = "; ".join(f"{name} {value[0]:.2f}" for name, value in factors.items() if name != "SEAL")
    return Outcome(
        verdict,
        reason,
        f"{factor:.2f} times",
        f"{low:.2f} to {high:.2f} by quartiles; {others}",
        f"{100 * (factor / wanted - 1):+.0f}%".replace("-", "\N{MINUS SIGN}"),
        "multiplication.csv",
    )


def _point(rows: Sequence[Row], name: str, log2_n: int, log2_q: int) -> Row:
    for row in rows:
        if (row["implementation"], row["polynomial_degree"], row["log2_q"]) == (name, 1 << log2_n, log2_q):
            return row
    raise NotTestedError(f"no multiplication of {name} was timed at log n = {log2_n}, log q = {log2_q}")


def first_image(evidence: Evidence, values: Values) -> Outcome:
    """Whether later images of a session take an offline phase: by the last image's offline seconds over the first's."""
    files = [file for file in evidence.measurements if file.scheme == AUTOPRIVACY] or list(evidence.measurements)
    ratios = []
    for file in files:
        seconds = [
            file.number("images", index, "offline", "client", "seconds") for index in range(len(file.get("images")))
        ]
        ratios.append(seconds[-1] / seconds[0])
    still = min(ratios) > 0.5
    return Outcome(
        NOT_REPRODUCED if still else REPRODUCED,
        "Masks, labels and garbled tables serve one image each, so every image takes an offline phase of its own; only "
        "preparing them ahead hides it."
        if still
        else "Later images take next to no offline phase.",
        f"the last offline phase takes {extent(significant(min(ratios)), significant(max(ratios)))} times as long as "
        "the first",
        f"{len(files)} sessions",
        result="tables/table2.csv",
    )


def nass(evidence: Evidence, values: Values) -> Outcome:
    """Beside NASS's published row; times of different machines are compared only as far as a direction shows."""
    network = values["network"]
    rows = [row for row in evidence.table2() if (row["network"], row["scheme"]) == (network, AUTOPRIVACY)]
    if not rows:
        raise NotTestedError(f"{network} was not measured under {AUTOPRIVACY}")
    row = next((row for row in rows if row["packing"] == PAPERS_PACKING), rows[0])
    published = next(line for line in evidence.paper["table3"] if line["name"] == "NASS")
    latency = _cut(row["t_total_seconds"], published["latency_seconds"])
    bytes_cut = _cut(row["m_total_bytes"], published["communication_gigabytes"] * 1e9)
    gained = row["accuracy_percent"] - published["accuracy_percent"]
    pairs = (
        (latency, values["latency_percent"]),
        (bytes_cut, values["communication_percent"]),
        (gained, values["accuracy_points"]),
    )
    holds = [own >= wanted for own, wanted in pairs]
    if all(holds):
        verdict, reason = REPRODUCED, "All three exceed the paper's numbers, latency on another machine."
    elif all(own > 0 for own, _ in pairs):
        verdict, reason = QUALITATIVELY, "All three are better than NASS's, not all by the paper's share."
    else:
        verdict = NOT_REPRODUCED
        reason = (
            "The published MobileNet-V2 checkpoint, trained for few epochs on a CPU, is not as accurate as the paper's."
        )
        if gained > 0:
            reason = "Not all of latency, communication and accuracy are better than NASS's."
    return Outcome(
        verdict,
        reason,
        f"latency {less(latency)}, communication {less(bytes_cut)}, accuracy {fixed(gained, '+.1f')} points",
        f"{row['packing']} packing, {row['network_setting']}",
        "; ".join(points(own - wanted) for own, wanted in pairs) + " points",
        "tables/table3.csv",
    )


def hundredfold(evidence: Evidence, values: Values) -> Outcome:
    """What the network would take with circuits alone and with HE alone, by this machine's measured rates.

    Circuits alone: every multiplication of the linear layers by schoolbook, b^2 AND gates for the partial products and
    b (b - 1) to add them, and one addition into the accumulator; garbled and evaluated at the profile's rates; the
    activations' circuits are left out. HE alone: as CryptoNets, one ciphertext per value, so one plaintext product per
    multiplication at the profile's rate; squarings are left out. Both are lower bounds.
    """
    network = values["network"]
    rows = [row for row in evidence.table2() if row["network"] == network]
    layers = evidence.quantization.get(network)
    if not rows or not layers:
        raise NotTestedError(f"{network} was not measured")
    fastest = min(rows, key=lambda row: row["t_total_seconds"])
    products = sum(_multiplications(layer) for layer in layers)
    bits, accumulator = values["weight_bits"], values["accumulator_bits"]
    gates = bits**2 + bits * (bits - 1) + accumulator
    per_gate = sum(evidence.profile.number("garbling", name, "median") for name in ("garble", "evaluate"))
    circuits = products * gates * per_gate
    he = products * _product_seconds(evidence.profile, values["he_degree"])
    own = fastest["t_total_seconds"]
    ratios = (circuits / own, he / own)
    wanted = values["factor"]
    verdict = _at_least(min(ratios), wanted, 2)
    return Outcome(
        verdict,
        f"{products / 1e6:.0f} million multiplications of {gates} AND gates, or of one plaintext product each, at this "
        "machine's measured rates; lower bounds for both.",
        f"{significant(ratios[0])} times (circuits alone), {significant(ratios[1])} times (HE alone)",
        f"{significant(circuits)} s and {significant(he)} s against {significant(own)} s "
        f"({fastest['scheme']}, {fastest['packing']}, {fastest['network_setting']})",
        f"{significant(min(ratios) / wanted)} of the paper's factor at least",
        "profile.json",
    )


def _multiplications(layer: Row) -> int:
    """Of a linear layer, for one image."""
    width, height, size, groups = (int(layer[key]) for key in ("x_w", "x_h", "k_s", "groups"))
    stride, padding = max(1, int(layer["s_s"])), int(layer["padding"])
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    return int(layer["c_out"]) * rows * columns * int(layer["c_in"]) // groups * size * size


def _product_seconds(profile: ResultFile, degree: int) -> float:
    """A plaintext product at n and the most primes that were measured there."""
    entries = [entry for entry in profile.get("operations") if entry["polynomial_degree"] == degree]
    if not entries:
        raise NotTestedError(f"the profile has no n = {degree}")
    largest = max(entries, key=lambda entry: (entry["primes"], entry["prime_bits"]))
    return float(largest["seconds"]["product"]["median"])


RULES = {
    "latency-cut": latency_cut,
    "traffic-cut": traffic_cut,
    "phase-cuts": phase_cuts,
    "he-share": he_share,
    "multiplication-growth": multiplication_growth,
    "first-image": first_image,
    "nass": nass,
    "hundredfold": hundredfold,
}
