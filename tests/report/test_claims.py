"""Verdicts on the paper's claims: computed from result files, and others where the files say otherwise.

Every result here is made up for the tests.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoprivacy.errors import UserError
from autoprivacy.report import verdicts_accuracy, verdicts_cost, verdicts_parameters, verdicts_search
from autoprivacy.report.claims import (
    CONTRADICTS,
    NOT_REPRODUCED,
    NOT_TESTED,
    QUALITATIVELY,
    REPRODUCED,
    VERDICTS,
    claims_table,
    judge,
)
from autoprivacy.report.evidence import Evidence
from autoprivacy.report.results import ResultFile, read_paper
from autoprivacy.report.text import less

PAPER = Path(__file__).parents[2] / "config" / "paper.yaml"
RULES = {**verdicts_cost.RULES, **verdicts_accuracy.RULES, **verdicts_parameters.RULES, **verdicts_search.RULES}
MOBILE = "mobilenetv2-cifar10"
NETWORKS = ("7cnet", "resnet32", MOBILE)
MADE_UP = {"cpu": "made up", "search_seconds": 600.0}


def measurement(network: str, scheme: str, seconds: float, megabytes: float, he: float = 0.5) -> ResultFile:
    """A made-up measurement in slot packing on the local network, two images."""
    parts = [{"kind": "he", "cpu_seconds": he}, {"kind": "garbling", "cpu_seconds": 1 - he}]
    phase = {"seconds": seconds, "parts": parts}
    image = {"offline": {"client": phase, "server": phase}, "online": {"client": phase, "server": phase}}
    image |= {"differing_outputs": 0, "largest_difference": 0, "prediction": 1, "expected_prediction": 1}
    spread = {"median": seconds, "lower_quartile": seconds, "upper_quartile": seconds}
    traffic = {"median": megabytes * 1e6 / 2}
    summary = {"t_setup": 1.0, "t_pre": spread, "t_on": spread, "t_total": spread, "m_setup": 1.0}
    summary |= {"m_pre": traffic, "m_on": traffic, "cpu_setup": 1.0, "cpu_pre": spread, "cpu_on": spread}
    value = {
        **{
            "network": network,
            "scheme": scheme,
            "packing": "slot",
            "network_setting": "lan",
            "exact": scheme == "darl",
        },
        **{"flooding": {"kind": "none"}, "summary": summary, "images": [image, image], "provenance": MADE_UP},
    }
    return ResultFile(f"{network}-{scheme}.json", value)


def policy(network: str, scheme: str, layers: Mapping[str, tuple[int, int]]) -> ResultFile:
    """A made-up policy: by layer n and a q of so many bits."""
    entries = [
        {
            "name": name,
            "target": {"decryption_error_rate": 2.0**-7, "tau": None},
            "parameters": {
                **{"polynomial_degree": degree, "plaintext_modulus": 65537, "key_switching_prime": None},
                "primes": [2**bits],
            },
            "predicted": {"security_bits": 130.0},
        }
        for name, (degree, bits) in layers.items()
    ]
    value = {"network": network, "scheme": scheme, "packing": "slot", "layers": entries, "provenance": MADE_UP}
    return ResultFile(f"{network}-{scheme}.json", value)


def accuracy(network: str, scheme: str, stage: str, percent: float) -> dict[str, Any]:
    """A row of accuracy.csv."""
    row: dict[str, Any] = {"network": network, "scheme": scheme, "packing": "slot" if scheme else "", "stage": stage}
    return row | {"accuracy_percent": percent, "interval_percent": 0.5, "images": 10000.0}


def residual_layers(second: int, fourth: int) -> dict[str, tuple[int, int]]:
    """Thirty-two layers, whose blocks of ten have a q of so many bits in their 2nd and 6th, and 4th and 8th layer."""
    bits = {2: second, 6: second, 4: fourth, 8: fourth}
    inner = {f"blocks.{i}": (4096, bits.get(i % 10 + 1, 90)) for i in range(30)}
    return {"conv": (4096, 90), **inner, "fc": (4096, 90)}


def multiplications(growth: float, secure: bool = False) -> list[dict[str, Any]]:
    """SEAL's and ours at the two points of Figure 3 that the paper compares."""
    rows = []
    for name in ("this project", "SEAL"):
        for (log2_n, log2_q), seconds in (((11, 120), 1.0), ((12, 180), growth)):
            row: dict[str, Any] = {"implementation": name, "polynomial_degree": 2.0**log2_n, "log2_q": float(log2_q)}
            row |= {f"seconds_{part}": seconds for part in ("median", "lower_quartile", "upper_quartile")}
            rows.append(row | {"security_bits": "58", "secure": str(secure)})
    return rows


def sensitivity(kind: str, levels: Mapping[float, float], degree: int = 4096) -> list[dict[str, Any]]:
    """Rows of one kind: by level the bits of q."""
    fixed = {"kind": kind, "packing": "slot", "flooding": "none", "polynomial_degree": str(degree)}
    return [
        {**fixed, "level": level, "log2_q": str(bits), "latency_seconds": str(bits)} for level, bits in levels.items()
    ]


def tolerance(points: float) -> list[dict[str, Any]]:
    """The change at 2^-7 in all layers, with an interval of one point."""
    row = {"kind": "rate", "level": -7.0, "layer": "", "difference_points": points, "images": 100.0}
    return [row | {"low_points": points - 0.5, "high_points": points + 0.5}]


def sampled(method: str, error: float) -> dict[str, Any]:
    """A row of the sampling study."""
    return {"method": method, "target": 15.0, "samples": 1e7, "relative_error": str(error)}


def compared(strategy: str, seconds: float) -> dict[str, Any]:
    """A run's last row of the comparison of strategies."""
    numbers = {"seed": 1.0, "evaluations": 10.0, "accuracy_percent": 90.0, "latency_seconds": seconds}
    numbers |= {"chosen_accuracy_percent": 90.0, "held_out_accuracy_percent": 90.0}
    return {"network": "7cnet", "strategy": strategy, **numbers}


def layer_row(name: str, groups: int) -> dict[str, Any]:
    """A row of a quantization table."""
    numbers = {"c_in": 64, "c_out": 64, "x_w": 16, "x_h": 16, "k_s": 3, "s_s": 1, "padding": 1, "groups": groups}
    return {"name": name, **{key: str(number) for key, number in numbers.items()}}


def published(secure: bool, rate: float) -> list[dict[str, Any]]:
    """Table 1's rows as printed."""
    fixed = {"reading": "as printed", "packing": "slot", "security_bits": "154", "secure": str(secure)}
    return [{**fixed, "system": system, "rate_per_ciphertext": str(rate)} for system in ("delphi", "darl")]


def study() -> Evidence:
    """A made-up study in which every claim that can be reproduced is, as the paper has it."""
    searched = {(network, "autoprivacy", "slot"): [{}] * 10 for network in NETWORKS}
    measurements = []
    for network in NETWORKS:
        measurements.append(measurement(network, "delphi", 10.0, 100.0, he=0.93))
        measurements.append(measurement(network, "darl", 8.0, 90.0))
        measurements.append(measurement(network, "autoprivacy", 3.0, 70.0))
    rows = [accuracy(network, "", "float", 92.5) for network in NETWORKS]
    for network in NETWORKS:
        rows += [accuracy(network, scheme, "integer", 92.7) for scheme in ("delphi", "darl", "autoprivacy")]
        rows += [accuracy(network, "autoprivacy", "errors", 84.0)]
        rows += [accuracy(network, "autoprivacy", "errors_finetuned", 92.7)]
    plain, mobile = {"conv": (4096, 90)}, {"deep": (2048, 40), "point": (4096, 90)}
    profile = {
        "garbling": {name: {"median": 2e-4} for name in ("garble", "evaluate")},
        "operations": [
            {
                **{"polynomial_degree": 8192, "primes": 4, "prime_bits": 60},
                "seconds": {"product": {"median": 0.1}},
            }
        ],
    }
    return Evidence(
        paper=read_paper(PAPER),
        measurements=measurements,
        policies=[
            policy("7cnet", "darl", plain),
            policy("7cnet", "autoprivacy", plain),
            policy("resnet32", "autoprivacy", residual_layers(60, 90)),
            policy("mobilenetv2-cifar10", "autoprivacy", mobile),
        ],
        accuracy=rows,
        search=searched,
        quantization={
            "7cnet": [layer_row("conv", 1)],
            "mobilenetv2-cifar10": [layer_row("deep", 64), layer_row("point", 1)],
        },
        profile=ResultFile("profile.json", profile),
        published=published(True, 2.0**-40),
        multiplication=multiplications(3.2, secure=True),
        sensitivity=[
            *sensitivity("kernel size", {1: 60, 3: 61, 5: 62}),
            *sensitivity("bit width", {4: 60, 8: 62, 12: 63, 20: 99}),
            *sensitivity("error rate", {-40: 180, -7: 60}),
        ],
        wraps=[
            {
                **{"network": "7cnet", "plaintext_bits": bits, "wraps": "0", "wrapped_percent": 0.0},
                **{"accuracy_percent": 90.0, "interval_percent": 0.5},
            }
            for bits in (14.0, 22.0)
        ],
        sampling=[sampled("brute force", 10.0), sampled("sigma-scaled", 0.05)],
        comparison=[compared("ddpg", 1.0), compared("uniform", 2.0), compared("random", 2.0)],
        tolerance={("7cnet", "slot"): tolerance(0.0), ("7cnet", "coefficient"): tolerance(0.0)},
        repeated_queries=repeated(0),
    )


def repeated(known: int) -> ResultFile:
    """The result of the attack by repeated queries."""
    value = {"approximate": {"weights_recovered": known, "weights": 32}, "exact": {"weights_recovered": 0}}
    return ResultFile("repeated-queries.json", {**value, "queries": 2400})


def verdicts(evidence: Evidence) -> dict[str, str]:
    """By claim."""
    return {row["claim"]: row["verdict"] for row in judge(evidence, "made-up", None, RULES)}


def test_every_claim_of_the_paper_has_a_rule_and_every_rule_a_claim() -> None:
    assert set(read_paper(PAPER)["claims"]) == set(RULES)


def test_a_study_that_agrees_with_the_paper_reproduces_it() -> None:
    found = verdicts(study())
    contradictions = {"search-space", "row-sum", "quantized-width"}  # whatever is measured
    # p of 17 bits is 1 mod n, but a power of two is no product of primes that are; images never share masks
    apart = {"five-rules", "first-image"}
    assert {claim for claim, verdict in found.items() if verdict == CONTRADICTS} == contradictions
    assert {claim for claim, verdict in found.items() if verdict != REPRODUCED} == contradictions | apart


def without(evidence: Evidence, scheme: str) -> list[ResultFile]:
    """The measurements of other schemes."""
    return [file for file in evidence.measurements if file.scheme != scheme]


def measured(seconds: float = 3.0, megabytes: float = 70.0) -> list[ResultFile]:
    """The made-up measurements with other ones of autoprivacy."""
    own = [measurement(network, "autoprivacy", seconds, megabytes) for network in NETWORKS]
    return without(study(), "autoprivacy") + own


def finetuned(errors: float, after: float) -> list[Mapping[str, Any]]:
    """accuracy.csv with other rows of autoprivacy."""
    stages = {"errors": errors, "errors_finetuned": after}
    return [{**row, "accuracy_percent": stages.get(row["stage"], row["accuracy_percent"])} for row in study().accuracy]


def baseline(he: float) -> list[ResultFile]:
    """The made-up measurements with another share of HE under DELPHI's set."""
    return without(study(), "delphi") + [measurement(network, "delphi", 10.0, 100.0, he) for network in NETWORKS]


def replaced(network: str, layers: Mapping[str, tuple[int, int]]) -> list[ResultFile]:
    """The made-up policies with another one of autoprivacy for a network."""
    others = [p for p in study().policies if (p.network, p.scheme) != (network, "autoprivacy")]
    return [*others, policy(network, "autoprivacy", layers)]


def slow_search() -> list[ResultFile]:
    """The made-up policies, whose searches took days."""
    found = [copy.deepcopy(policy) for policy in study().policies]
    for one in found:
        one.value["provenance"]["search_seconds"] = 1e6
    return found


def insecure() -> list[ResultFile]:
    """The made-up policies, one of whose layers has 100 bits of security."""
    found = [copy.deepcopy(policy) for policy in study().policies]
    found[0].value["layers"][0]["predicted"]["security_bits"] = 100.0
    return found


@pytest.mark.parametrize(
    ("claim", "changes", "verdict"),
    [
        ("latency-cut", {"measurements": measured(seconds=8.0)}, QUALITATIVELY),
        ("latency-cut", {"measurements": measured(seconds=9.9)}, NOT_REPRODUCED),
        ("traffic-cut", {"measurements": measured(megabytes=85.0)}, QUALITATIVELY),
        ("traffic-cut", {"measurements": measured(megabytes=99.0)}, NOT_REPRODUCED),
        ("phase-cuts", {"measurements": measured(seconds=5.0)}, QUALITATIVELY),
        ("phase-cuts", {"measurements": measured(seconds=11.0)}, NOT_REPRODUCED),
        ("he-share", {"measurements": baseline(0.6)}, QUALITATIVELY),
        ("he-share", {"measurements": baseline(0.3)}, NOT_REPRODUCED),
        ("nass", {"measurements": measured(seconds=9.0)}, QUALITATIVELY),
        ("nass", {"accuracy": finetuned(80.0, 80.0)}, NOT_REPRODUCED),
        ("accuracy-loss", {"accuracy": finetuned(84.0, 92.2)}, QUALITATIVELY),
        ("accuracy-loss", {"accuracy": finetuned(84.0, 85.0)}, NOT_REPRODUCED),
        ("finetuning", {"accuracy": finetuned(90.0, 92.0)}, QUALITATIVELY),
        ("finetuning", {"accuracy": finetuned(92.0, 92.1)}, NOT_REPRODUCED),
        ("multiplication-growth", {"multiplication": multiplications(4.0)}, QUALITATIVELY),
        ("multiplication-growth", {"multiplication": multiplications(1.5)}, NOT_REPRODUCED),
        ("multiplication-base-secure", {"multiplication": multiplications(3.2)}, NOT_REPRODUCED),
        ("kernel-size", {"sensitivity": sensitivity("kernel size", {1: 60, 5: 70})}, QUALITATIVELY),
        ("bit-width", {"sensitivity": sensitivity("bit width", {4: 60, 12: 75})}, QUALITATIVELY),
        ("error-rate", {"sensitivity": sensitivity("error rate", {-40: 60, -7: 58})}, QUALITATIVELY),
        ("error-rate", {"sensitivity": sensitivity("error rate", {-40: 60, -7: 60})}, NOT_REPRODUCED),
        ("security", {"policies": insecure()}, NOT_REPRODUCED),
        ("security", {"published": published(False, 2.0**-40)}, NOT_REPRODUCED),
        ("prior-error-rates", {"published": published(True, 0.0)}, NOT_REPRODUCED),
        ("tolerance-ciphertexts", {"tolerance": {("7cnet", "slot"): tolerance(-12.0)}}, NOT_REPRODUCED),
        ("tolerance-values", {"tolerance": {("7cnet", "coefficient"): tolerance(-2.0)}}, NOT_REPRODUCED),
        ("search-time", {"policies": slow_search()}, NOT_REPRODUCED),
        ("monte-carlo", {"sampling": [sampled("brute force", 0.06)]}, NOT_REPRODUCED),
        ("scaled-sampling", {"sampling": [sampled("brute force", 0.1), sampled("sigma-scaled", 0.5)]}, NOT_REPRODUCED),
        ("learned-policy", {"comparison": [compared("ddpg", 2.0), compared("uniform", 1.0)]}, NOT_REPRODUCED),
        ("residual-blocks", {"policies": replaced("resnet32", residual_layers(90, 60))}, NOT_REPRODUCED),
        ("depthwise", {"policies": replaced(MOBILE, {"deep": (4096, 90), "point": (4096, 90)})}, NOT_REPRODUCED),
        ("depthwise", {"policies": replaced(MOBILE, {"deep": (4096, 89), "point": (4096, 90)})}, QUALITATIVELY),
        ("repeated-queries", {"repeated_queries": repeated(30)}, NOT_REPRODUCED),
    ],
)  # fmt: skip
def test_altered_results_flip_a_verdict(claim: str, changes: dict[str, Any], verdict: str) -> None:
    assert verdicts(study())[claim] == REPRODUCED
    assert verdicts(replace(study(), **changes))[claim] == verdict


def test_accumulators_that_wrap_flip_the_verdict_on_p() -> None:
    rows = [dict(row) for row in study().wraps]
    rows[0] |= {"accuracy_percent": 10.0, "wraps": "5", "wrapped_percent": 46.0}
    assert verdicts(replace(study(), wraps=rows))["narrow-plaintext"] == NOT_REPRODUCED


def test_slow_circuits_and_products_decide_the_hundredfold() -> None:
    value = copy.deepcopy(study().profile.value)
    value["operations"][0]["seconds"]["product"]["median"] = 1e-9
    fast = ResultFile("profile.json", value)
    assert verdicts(study())["hundredfold"] == REPRODUCED
    assert verdicts(replace(study(), profile=fast))["hundredfold"] == NOT_REPRODUCED


def test_later_images_without_an_offline_phase_flip_the_verdict_on_the_first() -> None:
    files = copy.deepcopy(study().measurements)
    for file in files:
        file.value["images"][1] = copy.deepcopy(file.value["images"][1])
        file.value["images"][1]["offline"]["client"]["seconds"] = 0.01
    assert verdicts(study())["first-image"] == NOT_REPRODUCED
    assert verdicts(replace(study(), measurements=files))["first-image"] == REPRODUCED


def test_a_paper_that_adds_up_is_no_contradiction() -> None:
    paper = copy.deepcopy(study().paper)
    paper["table2"]["7cnet"]["autoprivacy"]["t_total_seconds"] = 10.55
    paper["claims"]["quantized-width"]["values"]["table3_bits"] = 8
    paper["claims"]["search-space"]["values"] |= {"rates": 11, "printed_log10": 14}
    found = verdicts(replace(study(), paper=paper))
    assert {found[claim] for claim in ("row-sum", "quantized-width", "search-space")} == {REPRODUCED}


@pytest.mark.parametrize("left_out", ["multiplication", "sensitivity", "wraps", "sampling", "comparison", "tolerance"])
def test_what_a_study_leaves_out_is_not_tested(left_out: str) -> None:
    complete, partial = study(), replace(study(), **{left_out: ()})
    rows = {row["claim"]: row for row in judge(partial, "made-up", None, RULES)}
    changed = [claim for claim, row in rows.items() if row["verdict"] != verdicts(complete)[claim]]
    assert changed and all(rows[claim]["verdict"] == NOT_TESTED for claim in changed)
    assert all("run.studies" in rows[claim]["reason"] for claim in changed)


def test_every_row_says_why_and_how_to_repeat_it() -> None:
    rows = judge(study(), "made-up", "config/paper-short.yaml", RULES)
    for row in rows:
        assert row["verdict"] in VERDICTS and row["reason"].endswith(".") and row["measured"]
        assert row["command"].startswith("snakemake -j8 --configfile config/paper-short.yaml -- results/made-up/")
    table = claims_table(rows, "made up")
    assert table.markdown().count("\n| ") == len(rows) + 2  # the header and its rule
    assert r"\textasciicircum{}" in table.latex("tab:claims") and "made up" in table.caption


def test_a_claim_without_a_rule_is_an_error() -> None:
    with pytest.raises(UserError, match="claim latency-cut: no rule for its verdict"):
        judge(study(), "made-up", None, {})


def test_a_cut_that_is_negative_is_told_as_a_rise():
    assert (less(12.4), less(-31.2)) == ("12% less", "31% more")
