"""Tables, figures and the report page, from result files that the library's own writers made of known numbers."""

from __future__ import annotations

import csv
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, Target
from autoprivacy.he.parameters.policy import LayerPolicy, Policy
from autoprivacy.he.ring.primes import primes_for
from autoprivacy.protocol.measurement import Contender, MeasureSettings, record
from autoprivacy.report import figures, network_settings, page, tables
from autoprivacy.report.paper_comparison import comparison_cells, comparison_sentences, contradictions
from autoprivacy.report.results import (
    ResultFile,
    read_accuracy,
    read_paper,
    read_search,
    read_table,
)
from autoprivacy.report.text import change, megabytes, points, power_of_two, significant
from autoprivacy.storage import write_json, write_rows

PAPER = Path(__file__).parents[2] / "config" / "paper.yaml"
NETWORK = "7cnet"
LAYERS = ("conv1", "conv2", "fc")
KEY = (NETWORK, "autoprivacy", "coefficient")  # of the search
SCHEMES = ("delphi", "darl", "autoprivacy")  # those of the paper; any other is drawn and told in the same way
SETS = {"delphi": ((13, 176),) * 3, "darl": ((12, 98),) * 3, "autoprivacy": ((12, 80), (11, 52), (12, 90))}
SECONDS = {"delphi": 4.0, "darl": 2.5, "autoprivacy": 1.0}  # offline, first image
PROVENANCE = {"date": "2024-05-06T07:08:09+00:00", "commit": "abc123", "cpu": "Test <CPU> & Co", "seed": None}


CLAIMS = [
    {
        **dict.fromkeys(("claim", "states", "source", "measured", "spread", "deviation", "command"), "x"),
        "verdict": "not reproduced",
        "reason": "bits < primes",
        "file": "tables/table2.csv",
    }
]
# A row of published-sets.csv.
PUBLISHED = [
    {
        **{"system": "delphi", "reading": "as printed", "plaintext_bits": "22", "polynomial_degree": "8192"},
        **{"log2_q": "180", "security_bits": "154.4", "secure": "True", "network": NETWORK, "packing": "slot"},
        **{
            "layer": "conv1",
            "plaintext_modulus": "4",
            "rate_per_value": "0.0",
            "rate_per_ciphertext": "0.0",
            "note": "",
        },
    }
]


def make_policy(scheme: str) -> Policy:
    """A policy with a real, secure set per layer."""
    rate = 2.0**-7 if scheme == "autoprivacy" else 2.0**-40
    layers = []
    for name, (log2_n, log2_q) in zip(LAYERS, SETS[scheme], strict=True):
        parameters = ParameterSet(65537, 1 << log2_n, primes_for(log2_q, 1 << log2_n))
        predicted = {"latency_seconds": 0.25, "z": 3.0, "tau": 1 / 6, "decryption_error_rate": rate / 2}
        predicted |= {"security_bits": 131.5, "bytes_up": 30_000.0, "bytes_down": 60_000.0}
        layers.append(LayerPolicy(name, Target(decryption_error_rate=rate), parameters, 1024.0, predicted))
    return Policy(NETWORK, scheme, "coefficient", Flooding("statistical", 40), tuple(layers), {}, PROVENANCE)


def phase(name: str, bundle: int | None, seconds: float, traffic: int, **kinds: float) -> dict[str, Any]:
    """A ledger's phase: CPU seconds by kind, and 0.125 s for the session."""
    fields = {"seconds": seconds, "bytes_sent": traffic, "bytes_received": 2 * traffic}
    kinds["session"] = 0.125
    parts = [{"layer": "conv1", "kind": kind, **fields, "cpu_seconds": value} for kind, value in kinds.items()]
    return {"phase": name, "bundle": bundle, **fields, "cpu_seconds": sum(kinds.values()), "parts": parts}


def make_measurement(scheme: str) -> dict[str, Any]:
    """Three images; autoprivacy's second has two outputs off by one and by three, and another class."""
    client, server = [phase("set-up", None, 0.5, 1000, ot=0.25)], [phase("set-up", None, 0.5, 1000, ot=0.25)]
    for bundle in range(4):  # the first is the warm-up
        seconds = SECONDS[scheme] + bundle - 1
        client.append(phase("offline", bundle, seconds, 1_000_000, he=0.5, waiting=0.0))
        client.append(phase("online", bundle, 0.25, 20_000, garbling=0.25))
        server.append(phase("offline", bundle, seconds, 1_000_000, he=1.5, garbling=0.5, ot=0.25))
        server.append(phase("online", bundle, 0.25, 20_000, linear=0.125))
    expected = np.tile(np.arange(10, dtype=np.int64), (3, 1))
    outputs = expected.copy()
    if scheme == "autoprivacy":
        outputs[1, 0], outputs[1, 8] = 1, 11
    contender = Contender(Path("network"), Path("policy"), expected, 0.5 if scheme == "autoprivacy" else None)
    measurement = record(
        make_policy(scheme), client, server, outputs, contender, np.array([9, 9, 9]), MeasureSettings(3)
    )
    return {**measurement, "throughput": None, "provenance": PROVENANCE}


def accuracy_rows() -> list[dict[str, Any]]:
    """accuracy.csv: stages per scheme."""
    values = {("", "float"): 90.0, ("", "integer"): 89.5}
    for scheme in SCHEMES:
        values |= {(scheme, "integer"): 89.5, (scheme, "errors"): 88.25}
    values[("autoprivacy", "errors_finetuned")] = 89.0
    names = ("network", "scheme", "stage", "accuracy_percent", "interval_percent", "images", "wraps", "packing")
    return [
        dict(zip(names, (NETWORK, *key, value, 0.6, 10000, 3, "coefficient" if key[0] else ""), strict=True))
        for key, value in values.items()
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's result files."""
    root = tmp_path_factory.mktemp("results")
    for scheme in SCHEMES:
        make_policy(scheme).save(root / f"policies/{NETWORK}/{scheme}-coefficient.json")
        write_json(root / f"measurements/{NETWORK}/{scheme}-coefficient.json", make_measurement(scheme))
    write_rows(root / "accuracy.csv", accuracy_rows())
    quantization = [{"index": i, "name": name, "shift": 9, "weight_norm": 1234.5678} for i, name in enumerate(LAYERS)]
    write_rows(root / f"quantization/{NETWORK}.csv", quantization)
    rewards, latencies = (-0.3, -0.1, -0.2, -0.05), (0.5, 0.6, 0.4, 0.45)
    episodes = [
        {
            "episode": i + 1,
            "reward": r,
            "latency_seconds": t,
            "best_episode": best,
            "best_reward": rewards[best - 1],
            "best_latency_seconds": latencies[best - 1],
            "within_budget": True,
        }
        for i, (r, t, best) in enumerate(zip(rewards, latencies, (1, 2, 2, 4), strict=True))
    ]
    write_rows(root / f"search/{NETWORK}/autoprivacy-coefficient.csv", episodes)
    write_json(root / "profile.json", {"provenance": PROVENANCE})
    return root


def read(results: Path, kind: str) -> list[ResultFile]:
    """The JSON results of a kind in the order of the schemes."""
    return [ResultFile.read(results / kind / NETWORK / f"{scheme}-coefficient.json") for scheme in SCHEMES]


@pytest.fixture(scope="module")
def rows(results: Path) -> list[dict[str, Any]]:
    """Table 2."""
    return tables.table2_rows(read(results, "measurements"), read_accuracy(results / "accuracy.csv"))


@pytest.fixture(scope="module")
def study(results: Path) -> page.Study:
    """The page's input, figures drawn."""
    measurements, policies = read(results, "measurements"), read(results, "policies")
    search = {KEY: read_search(results / f"search/{NETWORK}/autoprivacy-coefficient.csv")}
    figures.save(figures.breakdown_figure(measurements), results / "figures/breakdown")
    drawn = figures.parameters_figure(tables.parameters_rows(policies))
    figures.save(drawn, results / f"figures/parameters-{NETWORK}")
    drawn = figures.search_figure(search[KEY], "autoprivacy")
    figures.save(drawn, results / f"figures/search-{NETWORK}-autoprivacy-coefficient")
    return page.Study(
        name="quick",
        measurements=measurements,
        policies=policies,
        accuracy=read_accuracy(results / "accuracy.csv"),
        quantization={NETWORK: read_table(results / f"quantization/{NETWORK}.csv")},
        search=search,
        profile=ResultFile.read(results / "profile.json"),
        paper=read_paper(PAPER),
        claims=CLAIMS,
        published=PUBLISHED,
        figures=results / "figures",
        made={**PROVENANCE, "versions": {"python": "3.11"}},
    )


def test_table2_row_holds_the_hand_computed_values(rows: list[dict[str, Any]]) -> None:
    row = rows[2]
    assert (row["network"], row["scheme"], row["packing"]) == (NETWORK, "autoprivacy", "coefficient")
    assert (row["flooding"], row["flooding_bits"], row["network_setting"]) == ("statistical", 40, "loopback")
    # offline seconds of the three counted images: 1, 2, 3; online 0.25 each
    assert (row["t_setup_seconds"], row["t_pre_seconds"], row["t_on_seconds"], row["t_total_seconds"]) == (
        0.5,
        2.0,
        0.25,
        2.25,
    )
    assert (row["t_pre_lower_quartile_seconds"], row["t_pre_upper_quartile_seconds"]) == (1.5, 2.5)
    assert (row["t_total_lower_quartile_seconds"], row["t_total_upper_quartile_seconds"]) == (1.75, 2.75)
    # sent and received by the client: 1 + 2 million, 20 + 40 thousand
    assert (row["m_setup_bytes"], row["m_pre_bytes"], row["m_on_bytes"]) == (3000, 3_000_000, 60_000)
    assert row["m_total_bytes"] == 3_060_000
    # client 0.5 + 0.125 and server 2.25 + 0.125; client 0.25 + 0.125 and server 0.125 + 0.125
    assert (row["cpu_seconds_setup"], row["cpu_seconds_pre"], row["cpu_seconds_on"]) == (0.75, 3.0, 0.625)
    assert (row["accuracy_percent"], row["accuracy_interval_percent"]) == (89.0, 0.6)
    assert (row["images"], row["images_differing"], row["exact"]) == (3, 1, False)


def test_table2_takes_each_schemes_stage(rows: list[dict[str, Any]]) -> None:
    assert [row["accuracy_percent"] for row in rows] == [89.5, 89.5, 89.0]
    assert [(row["images_differing"], row["exact"]) for row in rows] == [(0, True), (0, True), (1, False)]


def test_only_statistical_flooding_has_bits() -> None:
    measurement = make_measurement("darl")
    measurement["flooding"] = {"kind": "none", "kappa": 40}
    row = tables.table2_rows([ResultFile("m", measurement)], accuracy_rows())[0]
    assert (row["flooding"], row["flooding_bits"]) == ("none", None)
    assert tables.table2_cells([row])[1][0][3] == "none"


def test_parameters_rows(results: Path) -> None:
    rows = tables.parameters_rows(read(results, "policies"))
    assert [(row["scheme"], row["layer"]) for row in rows] == [(s, layer) for s in SCHEMES for layer in LAYERS]
    for row, (log2_n, log2_q) in zip(rows, [pair for scheme in SCHEMES for pair in SETS[scheme]], strict=True):
        primes = primes_for(log2_q, 1 << log2_n)
        assert (row["plaintext_modulus"], row["polynomial_degree"]) == (65537, 2**log2_n)
        assert row["primes"] == len(primes)
        assert row["log2_q"] == pytest.approx(sum(np.log2(np.array(primes, float))), abs=1e-9)
    assert rows[-1]["target_decryption_error_rate"] == 2.0**-7 and rows[-1]["target_tau"] is None
    assert rows[-1]["predicted_bytes_down"] == 60_000 and rows[-1]["security_bits"] == 131.5


def test_rows_are_named_by_their_packing_where_there_are_several() -> None:
    rows = [{"scheme": "delphi", "packing": "coefficient"}, {"scheme": "darl", "packing": "coefficient"}]
    assert tables.contenders(rows) == ["delphi", "darl"]
    rows.append({"scheme": "delphi", "packing": "slot"})
    assert tables.contenders(rows) == ["delphi, coefficient", "darl, coefficient", "delphi, slot"]


def test_parameters_count_the_key_switching_prime_and_allow_no_prediction() -> None:
    layer = {"name": "fc", "target": {"tau": 0.5, "decryption_error_rate": None, "ignored_share_bits": 4}}
    layer["parameters"] = {"plaintext_modulus": 7, "polynomial_degree": 8, "primes": [17], "key_switching_prime": 97}
    policy = ResultFile("policy.json", {"network": "n", "scheme": "darl", "packing": "slot", "layers": [layer]})
    (row,) = tables.parameters_rows([policy])
    assert row["primes"] == 2 and row["log2_q"] == pytest.approx(np.log2(17 * 97))
    assert row["predicted_latency_seconds"] is None and row["security_bits"] is None
    cells = dict(zip(page.parameters_table([row]).header, page.parameters_table([row]).rows[0], strict=True))
    assert cells["target"] == "tau 0.500" and cells["share bits ignored"] == "4"
    exact = page.parameters_table([{**row, "ignored_share_bits": 0}]).rows[0]
    assert "none: exact" in exact and cells["activation"] == "–"
    layer |= {"activation": "lookup", "activation_reason": "lookup 4 ms, garbled 9 ms"}
    (row,) = tables.parameters_rows([policy])
    assert row["activation"] == "lookup"
    assert "lookup 4 ms, garbled 9 ms" in page.parameters_table([row]).rows[0]
    assert cells["latency (ms)"] == "–"


def test_tables_survive_the_csv_file(results: Path, rows: list[dict[str, Any]]) -> None:
    write_rows(results / "tables/table2.csv", rows)
    with open(results / "tables/table2.csv", newline="") as stream:
        (first, *_) = csv.DictReader(stream)
    assert float(first["t_pre_seconds"]) == rows[0]["t_pre_seconds"] == 5.0
    assert first["m_pre_bytes"] == "3000000" and first["exact"] == "True"


def test_cpu_seconds_add_up_to_the_phase(results: Path) -> None:
    measurement = read(results, "measurements")[0]
    offline = tables.cpu_seconds_by_kind(measurement, "offline")
    assert offline == pytest.approx({"he": 2.0, "waiting": 0.0, "garbling": 0.5, "ot": 0.25, "session": 0.25})
    assert sum(offline.values()) == pytest.approx(measurement.number("summary", "cpu_pre", "median"))
    assert tables.cpu_seconds_by_kind(measurement, "online") == pytest.approx(
        {"garbling": 0.25, "linear": 0.125, "session": 0.25}
    )
    assert tables.he_share_percent(measurement) == pytest.approx(100 * 2.0 / 3.625)


def test_agreement(study: page.Study) -> None:
    exact, _, tolerant = tables.agreement_rows(study.measurements)
    assert (exact["images_differing"], exact["outputs_differing"], exact["largest_difference"]) == (0, 0, 0)
    assert (tolerant["images_differing"], tolerant["outputs_differing"], tolerant["largest_difference"]) == (1, 2, 3)
    assert tolerant["predictions_differing"] == 1
    rows = page.agreement_table(study).rows
    assert [row[2] for row in rows] == ["equal, as promised"] * 2 + ["different (not promised)"]
    # two of thirty outputs are off, by 1 and 3; nobody simulated the exact ones
    assert [row[-2:] for row in rows] == [["0", "–"]] * 2 + [[significant(math.sqrt(10 / 30)), "0.500"]]
    ignoring = {**tolerant, "ignored_share_bits": 7, "images_differing": 0}
    assert page._verdict(ignoring) == "equal on these images (not promised; up to 7 share bits ignored)"
    assert page._verdict({**exact, "images_differing": 1}) == "DIFFERENT, although equality was promised"


def test_a_broken_promise_is_told(study: page.Study) -> None:
    broken = make_measurement("autoprivacy") | {"exact": True}
    kept = make_measurement("delphi") | {"exact": False}
    files = [ResultFile("m", broken), ResultFile("m", kept)]
    told = page.agreement_table(page.Study(**{**vars(study), "measurements": files}))
    assert [row[2] for row in told.rows] == [
        "DIFFERENT, although equality was promised",
        "equal on these images (not promised)",
    ]


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("summary", "t_pre", "median"), float("nan"), "summary.t_pre.median: got nan"),
        (("summary", "m_on", "median"), None, "summary.m_on.median: got None"),
        (("images", 1, "differing_outputs"), True, "images.1.differing_outputs: got True"),
    ],
)
def test_numbers_that_are_none_name_file_and_place(tmp_path: Path, keys: Any, value: Any, named: str) -> None:
    measurement = make_measurement("darl")
    entry: Any = measurement
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    path = tmp_path / "m.json"
    path.write_text(json.dumps(measurement))
    with pytest.raises(UserError, match=re.escape(f"{path}: {named}")):
        tables.table2_rows([ResultFile.read(path)], accuracy_rows())


def test_missing_entries_and_files_are_user_errors(tmp_path: Path, study: page.Study) -> None:
    measurement = make_measurement("darl")
    del measurement["summary"]["t_on"]
    with pytest.raises(UserError, match=r"m\.json: summary\.t_on\.median is missing"):
        tables.table2_rows([ResultFile("m.json", measurement)], accuracy_rows())
    with pytest.raises(UserError, match="m: no images"):
        tables.table2_rows([ResultFile("m", make_measurement("darl") | {"images": []})], accuracy_rows())
    with pytest.raises(UserError, match="no row for network 7cnet, scheme darl, coefficient packing, stage integer"):
        tables.table2_rows([ResultFile("m", make_measurement("darl"))], accuracy_rows()[:3])
    with pytest.raises(
        UserError, match='scheme "best" is unknown; allowed: delphi, delphi-worst-case, darl, autoprivacy'
    ):
        tables.table2_rows([ResultFile("m", make_measurement("darl") | {"scheme": "best"})], accuracy_rows())
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UserError, match="got a JSON list; expected an object"):
        ResultFile.read(tmp_path / "list.json")
    with pytest.raises(UserError, match=r"breakdown\.svg: no such file"):
        page.render(page.Study(**{**vars(study), "figures": tmp_path}))
    with pytest.raises(UserError, match="quantization: no table for network 7cnet; got none"):
        page.render(page.Study(**{**vars(study), "quantization": {}}))
    with pytest.raises(UserError, match="policies: none for network 7cnet"):
        page.render(page.Study(**{**vars(study), "policies": []}))


def test_tables_from_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.csv"
    write_rows(path, [{**accuracy_rows()[0], "accuracy_percent": "nan"}])
    with pytest.raises(UserError, match=r"line 2: accuracy_percent: got 'nan'; expected a finite number"):
        read_accuracy(path)
    write_rows(path, [{"network": NETWORK}])
    with pytest.raises(UserError, match="no columns scheme, packing, stage"):
        read_accuracy(path)
    with pytest.raises(UserError, match="no such file"):
        read_search(tmp_path / "none.csv")


def test_paper_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_paper(tmp_path / "paper.yaml")
    (tmp_path / "paper.yaml").write_text("table1: [")
    with pytest.raises(UserError, match="not valid YAML"):
        read_paper(tmp_path / "paper.yaml")
    (tmp_path / "paper.yaml").write_text("table1: []")
    with pytest.raises(UserError, match="citation, setting, he_share_percent, table2, table3, claims missing"):
        read_paper(tmp_path / "paper.yaml")


def test_the_papers_own_contradiction_is_found() -> None:
    paper = read_paper(PAPER)
    assert list(paper["table2"]) == ["7cnet", "resnet32", "mobilenetv2"]
    assert all(list(rows) == list(SCHEMES) for rows in paper["table2"].values())
    (only,) = contradictions(paper, list(paper["table2"]))
    assert "7cnet, autoprivacy prints t_total = 19.55 seconds, but 10.24 and 0.31 add up to 10.55" in only


def test_comparison_is_computed(rows: list[dict[str, Any]]) -> None:
    paper = read_paper(PAPER)
    header, cells = comparison_cells(rows, paper)
    assert cells[2][:6] == [NETWORK, "autoprivacy", "2.00", "10.24", "0.250", "0.31"]
    assert len(header) == len(cells[2]) == 14
    # delphi's total is 5.25 s: (2.25 - 5.25) / 5.25 = -57.1%; the paper's (19.55 - 41.8) / 41.8 = -53.2%
    assert cells[2][-2:] == ["−57%", "−53%"] and cells[0][-2:] == ["–", "–"]
    darl, autoprivacy = comparison_sentences(rows, paper)
    assert "2.25 s per image where delphi takes 5.25 s (−57%)" in autoprivacy
    assert "its accuracy differs by −0.50 percentage points" in autoprivacy
    # (10.55 - 41.8) / 41.8 = -74.8%; traffic (0.1 - 0.13) / 0.13 = -23.1%
    assert "−53% in time, −23% in traffic" in autoprivacy and "add up to 10.55 s, which would be −75%" in autoprivacy
    assert "overlap" not in autoprivacy and "overlap" not in darl and "flood" not in darl


def test_comparison_says_what_speaks_against_it(rows: list[dict[str, Any]]) -> None:
    paper = read_paper(PAPER)
    close = {**rows[2], "t_total_upper_quartile_seconds": 5.0, "flooding": "none"}
    (sentence,) = comparison_sentences([rows[0], close], paper)
    assert "quartiles of the two times overlap" in sentence and "(none and statistical)" in sentence
    own = [{**row, "network": "mine"} for row in rows[:2]]
    assert "The paper has no row for mine, darl." in comparison_sentences(own, paper)[0]
    assert comparison_sentences(rows[1:], paper) == []  # no baseline
    assert comparison_cells(rows[1:], paper)[1][0][-2] == "–"


def test_numbers_for_people() -> None:
    assert [significant(v) for v in (0, 41.83, 0.01234, 1234.5, 0.9996, 9.999, 2.0)] == [
        "0",
        "41.8",
        "0.0123",
        "1234",
        "1.00",
        "10.0",
        "2.00",
    ]
    assert significant(-0.5) == "−0.500" and megabytes(1.94e9) == "1940"
    assert (change(1, 4), change(5, 4), change(12, 4), change(4, 4)) == ("−75%", "+25%", "+200%", "0%")
    assert (points(-0.5), points(0.125)) == ("−0.50", "+0.12")
    assert (power_of_two(2.0**-40), power_of_two(0.3), power_of_two(0)) == ("2^−40", "2^−1.7", "0")


@pytest.mark.parametrize("name", ["breakdown", f"parameters-{NETWORK}", f"search-{NETWORK}-autoprivacy-coefficient"])
def test_figures_are_drawn(study: page.Study, name: str) -> None:
    root = ElementTree.parse(study.figures / f"{name}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 20
    with Image.open(study.figures / f"{name}.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1000
    ink = (pixels != 255).any(axis=2)
    assert 0.01 < ink.mean() < 0.9
    assert not ink[:, -2:].any() and not ink[:2].any()  # nothing runs into the edge


def test_parameters_figure_shows_the_values(study: page.Study) -> None:
    figure = figures.parameters_figure(tables.parameters_rows(study.policies))
    degree, modulus = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in degree.lines}
    assert drawn == {scheme: [log2_n for log2_n, _ in SETS[scheme]] for scheme in SCHEMES}
    for line, scheme in zip(modulus.lines, SCHEMES, strict=True):
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx([log2_q for _, log2_q in SETS[scheme]], abs=0.1)
    assert [label.get_text() for label in modulus.get_xticklabels()] == list(LAYERS)


def test_parameters_figure_shows_the_ignored_share_bits_where_there_are_any(study: page.Study) -> None:
    rows = tables.parameters_rows(study.policies)
    ignored = {row["scheme"]: [2 * k for k, _ in enumerate(LAYERS)] for row in rows[-1:]}
    rows = [
        {**row, "ignored_share_bits": ignored[row["scheme"]][LAYERS.index(row["layer"])]}
        if row["scheme"] in ignored
        else row
        for row in rows
    ]
    axes = figures.parameters_figure(rows).axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes[2].lines}
    assert drawn == ignored  # schemes that ignore none are not drawn
    assert [label.get_text() for label in axes[2].get_xticklabels()] == list(LAYERS)


def test_a_search_tells_whose_latency_it_limits(study: page.Study) -> None:
    rows = study.search[KEY]
    for searched, whose in (("autoprivacy", "linear layers"), ("tolerant", "linear layers and circuits")):
        assert figures.search_figure(rows, searched).axes[1].get_ylabel().endswith(f"of {whose}")


def test_breakdown_bars_end_at_the_total(study: page.Study) -> None:
    offline, online = figures.breakdown_figure(study.measurements).axes
    ends = [
        max(bar.get_x() + bar.get_width() for bars in axis.containers for bar in bars) for axis in (offline, online)
    ]
    assert ends == pytest.approx([3.0, 0.625])
    assert [label.get_text() for label in offline.get_yticklabels()] == [f"{NETWORK}, {scheme}" for scheme in SCHEMES]


def under_settings() -> list[ResultFile]:
    """Every scheme under two network settings, the second with a run on a pool that the first does not have."""
    throughput = {"pool": 2, "images": 4, "images_differing": 1, "images_per_second": 0.5}
    throughput |= {"seconds_from_pool": None}
    throughput |= {"seconds_pool_dry": {"median": 2.0, "lower_quartile": 1.5, "upper_quartile": 2.5}}
    slow = {"network_setting": "wan", "link": {"bits_per_second": 2e7, "round_trip_seconds": 0.05}}
    files = []
    for more in ({}, {**slow, "throughput": throughput}):
        for scheme in SCHEMES:
            value = {**make_measurement(scheme), **more}
            summary = {**value["summary"], "t_on": {**value["summary"]["t_on"], "median": 3.0 if more else 0.25}}
            files.append(ResultFile("m", {**value, "summary": summary}))
    return files


def test_network_settings_have_a_panel_each() -> None:
    figure = network_settings.settings_figure(under_settings())
    assert [axis.get_title() for axis in figure.axes] == ["loopback", "wan", "traffic, the same under each"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"{NETWORK}, {s}" for s in SCHEMES]
    megabytes_sent = [bar.get_x() + bar.get_width() for bar in figure.axes[-1].containers[1]]
    assert megabytes_sent == pytest.approx([3.06] * 3)
    for axis, online in zip(figure.axes[:-1], (0.25, 3.0), strict=True):
        ends = [bar.get_x() + bar.get_width() for bar in axis.containers[1]]
        assert ends == pytest.approx([SECONDS[scheme] + 1 + online for scheme in SCHEMES])  # medians of three images
        told = [text.get_text() for text in axis.texts]
        assert told == [significant(SECONDS[scheme] + 1 + 0.25) for scheme in SCHEMES]  # as in Table 2
    first, *_, last = under_settings()
    assert network_settings.setting_text(first) == "loopback (both parties on one machine)"
    assert network_settings.setting_text(last) == "wan (20.0 Mbit/s each way, round trip 50.0 ms)"


def test_the_figure_of_network_settings_has_what_all_of_them_measured() -> None:
    alone = {**make_measurement("darl"), "network": "other"}  # under the first setting alone
    figure = network_settings.settings_figure([ResultFile("m", alone), *under_settings()])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"{NETWORK}, {s}" for s in SCHEMES]
    assert all(len(axis.containers[0]) == len(SCHEMES) for axis in figure.axes)


def test_throughput_tells_what_the_pool_saves() -> None:
    header, cells = network_settings.throughput_cells(under_settings())
    assert [row[0] for row in cells] == [f"{NETWORK}, {scheme}, wan" for scheme in SCHEMES]
    row = dict(zip(header, cells[0], strict=True))
    assert (row["images"], row["from the pool"], row["images per second"]) == ("4", "2", "0.500")
    assert row["seconds from the pool"] == "–" and row["seconds, pool dry"] == "2.00 [1.50, 2.50]"
    assert row["images differing"] == "1"


def test_the_page_shows_network_settings_and_throughput_where_there_are_any(study: page.Study) -> None:
    plain = page.render(study)
    assert "Over slower networks" not in plain and "Many images in a row" not in plain
    figures.save(network_settings.settings_figure(under_settings()), study.figures / "network-settings")
    text = page.render(page.Study(**{**vars(study), "measurements": under_settings()}))
    assert text.count("<svg") == 4 and "round trip 50.0 ms" in text
    assert "Network setting loopback; the work is the same in the others." in text
    for row in network_settings.throughput_cells(under_settings())[1]:
        assert row in Page(text).rows


def test_figures_are_reproducible(study: page.Study, tmp_path: Path) -> None:
    figures.save(figures.breakdown_figure(study.measurements), tmp_path / "again")
    for suffix in (".svg", ".png"):
        assert (tmp_path / f"again{suffix}").read_bytes() == (study.figures / f"breakdown{suffix}").read_bytes()


def test_figures_refuse_what_does_not_fit(study: page.Study) -> None:
    rows = tables.parameters_rows(study.policies)
    with pytest.raises(UserError, match="policy autoprivacy of 7cnet: layers differ"):
        figures.parameters_figure(rows[:-1])
    measurement = make_measurement("darl")
    measurement["images"][0]["offline"]["client"]["parts"][0]["kind"] = "magic"
    with pytest.raises(UserError, match=r"kinds of work \['magic'\]; expected he, garbling"):
        figures.breakdown_figure([ResultFile("m", measurement)])


class Page(HTMLParser):
    """Collects what the tests ask of the page: balanced tags, ids, references, text by cell."""

    VOID = ("meta", "br", "link", "img", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "data", "poster"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_page_stands_alone_and_holds_every_row(study: page.Study, rows: list[dict[str, Any]]) -> None:
    text = page.render(study)
    parsed = Page(text)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not parsed.tags & {"link", "img", "iframe", "object", "style-sheet"}
    assert text.count("<script>") == 1 and "<script " not in text  # its own, which sorts tables and enlarges figures
    inside = {reference[1:] for reference in parsed.references if reference.startswith("#")} - {
        "figures"
    }  # no experiment
    files = {reference for reference in parsed.references if not reference.startswith("#")}
    assert inside <= set(parsed.ids)
    assert {
        "claims.csv",
        "tables/table1.csv",
        "tables/table2.csv",
        "tables/table3.csv",
        "figures/breakdown.pdf",
    } <= files
    assert not any(re.match(r"\w+:|/", file) for file in files)  # of the study's own folder
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert {target[1:] for target in re.findall(r"url\((#[^)]*)\)", text)} <= set(parsed.ids)
    for expected in [
        *page.table2_table(rows).rows,
        *comparison_cells(rows, study.paper)[1],
        *page.parameters_table(tables.parameters_rows(study.policies)).rows,
        *page.agreement_table(study).rows,
        *page.accuracy_table(study).rows,
        *page.provenance_table(study).rows,
    ]:
        assert list(expected) in parsed.rows
    assert ["conv2", "1", "9", "1235"] in parsed.rows  # quantization: name first, then as in the file, rounded
    assert ["delphi", "22", "13", "180", "3.2", "> 128", "> 2^-40"] in parsed.rows
    assert "1 not reproduced" in text and "bits &lt; primes" in text
    assert text.count("<svg") == 3 and "0.31 add up to 10.55" in text


def test_page_table2_tells_once_what_all_rows_share(rows: list[dict[str, Any]]) -> None:
    table = page.table2_table(rows)
    assert table.caption == "packing: coefficient; flooding: statistical 40 bits; setting: loopback; images: 3"
    assert table.header[:4] == ["network", "scheme", "t_setup (s)", "t_pre (s)"] and table.text_columns == 2
    assert table.rows[2][:4] == [NETWORK, "autoprivacy", "0.500", "2.00\n[1.50, 2.50]"]
    mixed = page.table2_table([rows[0], {**rows[1], "flooding": "none", "flooding_bits": None}])
    assert mixed.header[2] == "flooding" and [row[2] for row in mixed.rows] == ["statistical 40 bits", "none"]


def test_page_escapes_what_it_is_given(study: page.Study) -> None:
    text = page.render(page.Study(**{**vars(study), "name": "<b>mine</b>"}))
    assert "<b>mine" not in text and "&lt;b&gt;mine" in text
    assert "Test <CPU>" not in text and "Test &lt;CPU&gt; &amp; Co" in text


def test_search_table_lists_the_improvements(study: page.Study) -> None:
    episodes = study.search[KEY]
    assert [row[0] for row in page.search_table(episodes).rows] == ["1", "2", "4"]
    assert "4 episodes" in page.render(study)
    without = page.render(page.Study(**{**vars(study), "search": {}}))
    assert "search history" not in without and without.count("<svg") == 2


def test_mixed_origins_are_told(study: page.Study) -> None:
    assert page.provenance_warnings(study) == []
    profile = ResultFile("p", {"provenance": {**PROVENANCE, "commit": "def-dirty", "cpu": "Other"}})
    told = " ".join(page.provenance_warnings(page.Study(**{**vars(study), "profile": profile})))
    assert "several commits: abc123, def-dirty" in told and "several processors: Other" in told and "-dirty)" in told


def test_inline_svg_refuses_other_files() -> None:
    with pytest.raises(UserError, match="figure x: not an SVG file"):
        page.inline_svg("nothing", "x", "title")
    svg = '<?xml version="1.0"?><svg width="7pt" viewBox="0 0 1 1"><g id="a"/><use href="#a"/></svg>'
    inlined = str(page.inline_svg(svg, "x", 'a "b"'))
    assert inlined.startswith("<svg viewBox") and 'id="x-a"' in inlined and 'href="#x-a"' in inlined
    assert 'aria-label="a &#34;b&#34;"' in inlined and "width" not in inlined
