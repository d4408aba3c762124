"""The report page: one HTML file that carries its figures and style and needs no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autoprivacy.errors import UserError
from autoprivacy.report import paper_tables, tables
from autoprivacy.report.claims import CONTRADICTS, NOT_REPRODUCED, NOT_TESTED, QUALITATIVELY, REPRODUCED, VERDICTS
from autoprivacy.report.experiments import EXPERIMENTS
from autoprivacy.report.network_settings import THROUGHPUT_NOTE, by_setting, setting_text, throughput_cells
from autoprivacy.report.paper_comparison import NOT_KNOWN, comparison_cells, comparison_sentences, contradictions
from autoprivacy.report.results import ResultFile, by_network
from autoprivacy.report.results import scheme as looks
from autoprivacy.report.table_formats import TextTable
from autoprivacy.report.text import change, extent, fixed, points, power_of_two, significant

PARAMETERS = "tables/parameters.csv"
# The colour and the sign of a verdict: colour is not the only difference.
LIGHTS = {
    REPRODUCED: ("#1a7f37", "\N{CHECK MARK}"),
    QUALITATIVELY: ("#9a6700", "\N{ALMOST EQUAL TO}"),
    NOT_REPRODUCED: ("#cf222e", "\N{MULTIPLICATION SIGN}"),
    CONTRADICTS: ("#8250df", "!"),
    NOT_TESTED: ("#6e7781", "\N{EN DASH}"),
}
TEMPLATE = Path(__file__).with_name("template.html.j2")


@dataclass(frozen=True)
class Study:
    """What the page is made from.

    Attributes:
        name: of the study.
        measurements, policies: the JSON results.
        accuracy: rows of accuracy.csv.
        quantization: per network the rows of its CSV file.
        search: per network, scheme and packing that was searched the rows of its CSV file.
        profile: the hardware profile; its provenance names the machine.
        paper: config/paper.yaml.
        claims: rows of claims.csv.
        published: rows of published-sets.csv.
        figures: the folder of the SVG files.
        made: `provenance.provenance()` of the run that makes the page.
    """

    name: str
    measurements: Sequence[ResultFile]
    policies: Sequence[ResultFile]
    accuracy: Sequence[Mapping[str, Any]]
    quantization: Mapping[str, Sequence[Mapping[str, Any]]]
    search: Mapping[tuple[str, str, str], Sequence[Mapping[str, Any]]]
    profile: ResultFile
    paper: Mapping[str, Any]
    claims: Sequence[Mapping[str, Any]]
    published: Sequence[Mapping[str, Any]]
    figures: Path
    made: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of cells; the first `text_columns` are words, the others numbers; the caption stands above.

    Attributes:
        file: the result file with these numbers, relative to the page; empty where there is none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    caption: str = ""
    file: str = ""

    @classmethod
    def of(cls, table: TextTable, file: str) -> Table:
        """A table that is a file of its own."""
        return cls(table.header, table.rows, table.text_columns, table.caption, file)


@dataclass(frozen=True)
class FigureBox:
    """A figure and what it shows.

    Attributes:
        svg: the figure as an element of the page.
        caption: below it.
        name: of its files in figures/, without an ending.
        data: the result file that it is drawn from, relative to the page; empty where there are several.
    """

    svg: Markup
    caption: str
    name: str
    data: str = ""


def render(study: Study) -> str:
    """The page as HTML; UserError when a result or figure is missing or has no sense."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    rows = tables.table2_rows(study.measurements, study.accuracy)
    networks = list(by_network(study.measurements))
    return environment.get_template(TEMPLATE.name).render(
        study=study,
        cpu=study.profile.get("provenance", "cpu"),
        settings="; ".join(dict.fromkeys(map(setting_text, study.measurements))),
        networks=networks,
        images=sorted({row["images"] for row in rows}),
        claims=study.claims,
        counts={verdict: sum(row["verdict"] == verdict for row in study.claims) for verdict in VERDICTS},
        lights=LIGHTS,
        printed=_printed_tables(study, rows),
        table2=table2_table(rows),
        table2_note=tables.TABLE2_NOTE,
        experiments=experiment_boxes(study),
        comparison=Table(*comparison_cells(rows, study.paper), text_columns=2),
        sentences=comparison_sentences(rows, study.paper),
        contradictions=contradictions(study.paper, networks),
        breakdown=_box(study, "breakdown", "CPU seconds by kind of work", _breakdown_caption(study)),
        network_settings=_settings_box(study),
        throughput=Table(*throughput_cells(study.measurements)),
        throughput_note=THROUGHPUT_NOTE,
        agreement=agreement_table(study),
        accuracy=accuracy_table(study),
        paper_parameters=_plain(study.paper["table1"], "scheme"),
        sections=[_network_section(study, network) for network in networks],
        provenance=provenance_table(study),
        warnings=provenance_warnings(study),
    )


def _network_section(study: Study, network: str) -> dict[str, Any]:
    """Everything that the page shows of one network's parameters."""
    if network not in study.quantization:
        raise UserError(f"quantization: no table for network {network}; got {', '.join(study.quantization) or 'none'}")
    rows = tables.parameters_rows([policy for policy in study.policies if policy.network == network])
    if not rows:
        raise UserError(f"policies: none for network {network}; select its parameters again")
    title = f"parameters per layer, {network}"
    section = {
        "network": network,
        "parameters_figure": _box(study, f"parameters-{network}", title, _parameters_caption(rows), PARAMETERS),
        "parameters": parameters_table(rows),
        "quantization": _plain(study.quantization[network], "name"),
        "searches": [
            _search_section(study, key, episodes) for key, episodes in study.search.items() if key[0] == network
        ],
    }
    return section


def _search_section(study: Study, key: tuple[str, str, str], episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    network, scheme, packing = key
    title = f"search history, {network}, {scheme}, {packing} packing"
    file = f"search/{network}/{scheme}-{packing}.csv"
    return {
        "scheme": f"{scheme}, {packing} packing",
        "figure": _box(
            study, "search-" + "-".join(key), title, _search_caption(episodes, looks(scheme).searched), file
        ),
        "table": search_table(episodes),
    }


def table2_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table 2 narrow enough for a page: quartiles under their median, and once above the table what all rows share."""
    header, body = tables.table2_cells(rows)
    movable = [column for column, name in enumerate(header) if name in ("packing", "flooding", "setting", "images")]
    shared = [column for column in movable if len({line[column] for line in body}) == 1]
    kept = [column for column in range(len(header)) if column not in shared]
    caption = "; ".join(f"{header[column]}: {body[0][column]}" for column in shared)
    cells = [[line[column].replace(" [", "\n[") for column in kept] for line in body]
    words = sum(column < tables.TABLE2_TEXT_COLUMNS for column in kept)
    return Table([header[column] for column in kept], cells, words, caption, "tables/table2.csv")


def agreement_table(study: Study) -> Table:
    """Whether the secure outputs equal the integer network's bit for bit, and how far they are off where not."""
    header = ["network", "scheme", "verdict", "images", "images differing", "classes differing", "outputs differing"]
    header += ["largest difference", "rms difference", "simulated rms"]
    rows, measured = [], tables.agreement_rows(study.measurements)
    counts = ("images", "images_differing", "predictions_differing", "outputs_differing", "largest_difference")
    for row, name in zip(measured, tables.contenders(measured), strict=True):
        simulated = row["simulated_rms_difference"]
        sizes = [significant(row["rms_difference"]), NOT_KNOWN if simulated is None else significant(simulated)]
        rows.append([row["network"], name, _verdict(row), *(str(row[key]) for key in counts), *sizes])
    return Table(header, rows, text_columns=3)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["exact"]:
        return "DIFFERENT, although equality was promised" if row["images_differing"] else "equal, as promised"
    ignored = f"; up to {row['ignored_share_bits']} share bits ignored" if row["ignored_share_bits"] else ""
    return f"{'different' if row['images_differing'] else 'equal on these images'} (not promised{ignored})"


def accuracy_table(study: Study) -> Table:
    """Every row of accuracy.csv, beside the integer network's under the same scheme."""
    header = ["network", "scheme", "stage", "accuracy (%)", "against integer (points)", "images", "wraps"]
    integer = {
        (row["network"], row["scheme"]): row["accuracy_percent"] for row in study.accuracy if row["stage"] == "integer"
    }
    rows = []
    for row in study.accuracy:
        reference = integer.get((row["network"], row["scheme"]))
        apart = reference is None or row["stage"] == "integer"
        rows.append(
            [
                *(str(row[key]) or NOT_KNOWN for key in ("network", "scheme", "stage")),
                f"{row['accuracy_percent']:.2f} ± {row['interval_percent']:.2f}",
                NOT_KNOWN if apart else points(row["accuracy_percent"] - reference),
                f"{row['images']:.0f}",
                str(row.get("wraps", "")) or NOT_KNOWN,
            ]
        )
    return Table(header, rows, text_columns=3, file="accuracy.csv")


def parameters_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The parameters per layer for people."""
    header = ["scheme", "layer", "p", "n", "primes", "log2 q", "security (bits)", "target", "share bits ignored"]
    header += ["activation"]
    header += ["predicted error rate", "tau", "z", "latency (ms)", "up (kB)", "down (kB)"]

    def cell(value: float | None, factor: float = 1.0) -> str:
        return NOT_KNOWN if value is None else significant(value * factor)

    def line(row: Mapping[str, Any], name: str) -> list[str]:
        rate, target = row["predicted_decryption_error_rate"], row["target_decryption_error_rate"]
        goal = f"tau {significant(row['target_tau'])}" if target is None else f"rate {power_of_two(target)}"
        return [
            name,
            *(str(row[key]) for key in ("layer", "plaintext_modulus", "polynomial_degree", "primes")),
            f"{row['log2_q']:.1f}",
            cell(row["security_bits"]),
            goal,
            str(row["ignored_share_bits"] or "none: exact"),
            row["activation_reason"] or row["activation"] or NOT_KNOWN,
            NOT_KNOWN if rate is None else power_of_two(rate),
            *(cell(row[f"predicted_{key}"]) for key in ("tau", "z")),
            cell(row["predicted_latency_seconds"], 1e3),
            *(cell(row[f"predicted_bytes_{direction}"], 1e-3) for direction in ("up", "down")),
        ]

    body = [line(row, name) for row, name in zip(rows, tables.contenders(rows), strict=True)]
    return Table(header, body, text_columns=2, file=PARAMETERS)


def search_table(episodes: Sequence[Mapping[str, Any]]) -> Table:
    """The episodes that became the best so far: more accurate, or as good as that and faster."""
    rows = [
        [f"{row['episode']:.0f}", fixed(row["reward"], ".4f"), significant(row["latency_seconds"])]
        for row in episodes
        if row["best_episode"] == row["episode"]
    ]
    return Table(["episode", "reward", "predicted latency (s)"], rows, text_columns=0)


def _plain(rows: Sequence[Mapping[str, Any]], text: str) -> Table:
    """Rows as they stand in their file, numbers rounded; the column `text` comes first."""
    columns = [text, *(key for key in rows[0] if key != text)] if text in rows[0] else list(rows[0])
    return Table(
        [column.replace("_", " ") for column in columns], [[_rounded(row[c]) for c in columns] for row in rows]
    )


def _rounded(value: Any) -> str:
    text = str(value)
    if not re.fullmatch(r"-?\d+\.\d+(e[+-]?\d+)?", text):
        return text
    rounded = significant(float(text), 4)
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def _settings_box(study: Study) -> FigureBox | None:
    """Latency by network setting, where there are several."""
    if len(by_setting(study.measurements)) < 2:
        return None
    return _box(
        study,
        "network-settings",
        "seconds and bytes per image by network setting",
        "Seconds and bytes per image by network setting, medians; every panel has a scale of its own. Over a slow "
        "connection bytes and round trips decide, not computation. Set-up, once per session, is in no bar.",
        "tables/table2.csv",
    )


def _breakdown_caption(study: Study) -> str:
    (setting, measurements), *others = by_setting(study.measurements).items()
    names = tables.contenders(tables.agreement_rows(measurements))
    shares = "; ".join(
        f"{measurement.network} {name} {tables.he_share_percent(measurement):.0f}%"
        for measurement, name in zip(measurements, names, strict=True)
    )
    only = f" Network setting {setting}; the work is the same in the others." if others else ""
    return (
        f"CPU seconds of client and server together, mean per image, by kind of work; the shape of the paper's "
        f"Figure 1(a). CPU seconds rather than wall time, because the parties work at the same time.{only} Share of "
        f"HE, offline and online together: {shares}. In the paper HE-based linear layers take "
        f"{study.paper['he_share_percent']}% of DELPHI's latency."
    )


def _parameters_caption(rows: Sequence[Mapping[str, Any]]) -> str:
    by_contender: dict[str, list[tuple[int, float]]] = {}
    for row, name in zip(rows, tables.contenders(rows), strict=True):
        by_contender.setdefault(name, []).append((row["polynomial_degree"], row["log2_q"]))
    facts = []
    for name, sets in by_contender.items():
        bits = sorted({round(log2_q, 1) for _, log2_q in sets})
        told = extent(f"{bits[0]:g}", f"{bits[-1]:g}")
        facts.append(f"{name} {len(set(sets))} ({told} bits of q)")
    return (
        "Polynomial degree n and ciphertext modulus q per linear layer; the shape of the paper's Figure 6. log2 q "
        f"counts every prime that keys or ciphertexts exist under. Distinct (n, q) in use: {', '.join(facts)}."
    )


def _search_caption(episodes: Sequence[Mapping[str, Any]], searched: str) -> str:
    inside = [row for row in episodes if row["within_budget"] == "True"]
    first, best = inside[0], episodes[int(episodes[-1]["best_episode"]) - 1]
    reward, time = fixed(best["reward"], ".4f"), significant(best["latency_seconds"])
    first_reward, first_time = fixed(first["reward"], ".4f"), significant(first["latency_seconds"])
    return (
        f"{len(episodes)} episodes: reward (minus the error on the exploration subset) and predicted "
        f"latency of the {searched}. Best policy: episode {best['episode']:.0f}, reward {reward} at {time} s; the "
        f"first policy within the budget had {first_reward} at {first_time} s "
        f"({change(best['latency_seconds'], first['latency_seconds'])})."
    )


def _printed_tables(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Table]]:
    """The paper's tables with its numbers beside ours, each with its title."""
    first = paper_tables.table1(paper_tables.table1_rows(study.published, study.policies, study.paper))
    second = paper_tables.table2(paper_tables.table2_paper_columns(rows, study.paper), study.measurements, study.paper)
    third = paper_tables.table3(paper_tables.table3_rows(rows, study.policies, study.paper), study.measurements)
    return [
        (table.title, Table.of(table, f"tables/table{number}.csv"))
        for number, table in enumerate((first, second, third), start=1)
    ]


def experiment_boxes(study: Study) -> list[FigureBox]:
    """The figures of the experiments that the study made, in the order of EXPERIMENTS."""
    boxes = []
    for prefix, (title, caption, data) in EXPERIMENTS.items():
        for path in sorted(study.figures.glob(f"{prefix}*.svg")):
            rest = path.stem.removeprefix(prefix)
            about = f"{title}{f', {rest}' if rest else ''}"
            boxes.append(_box(study, path.stem, about, f"{about[0].upper()}{about[1:]}. {caption}", data.format(rest)))
    return boxes


def _box(study: Study, name: str, title: str, caption: str, data: str = "") -> FigureBox:
    return FigureBox(_svg(study, name, title), caption, name, data)


def _svg(study: Study, name: str, title: str) -> Markup:
    path = study.figures / f"{name}.svg"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make the figures again") from None
    return inline_svg(text, name, title)


def inline_svg(text: str, prefix: str, title: str) -> Markup:
    """An SVG file as an element of the page: scalable, named for screen readers, its ids unique on the page."""
    start = text.find("<svg")
    if start < 0:
        raise UserError(f"figure {prefix}: not an SVG file; make the figures again")
    head, body = text[start:].split(">", 1)
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    body = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    label = Markup.escape(title)
    return Markup(f'{head} role="img" aria-label="{label}">{body}')  # noqa: S704


def _sources(study: Study) -> list[ResultFile]:
    return [study.profile, *study.policies, *study.measurements]


def provenance_table(study: Study) -> Table:
    """Where each result file came from."""
    header = ["file", "made", "commit", "processor", "seed"]
    rows = []
    for source in _sources(study):
        record = source.provenance
        values = [record.get(key) for key in ("date", "commit", "cpu", "seed")]
        rows.append([source.path, *(NOT_KNOWN if value is None else str(value) for value in values)])
    return Table(header, rows, text_columns=len(header))


def provenance_warnings(study: Study) -> list[str]:
    """What a reader of the numbers should know of their origin: mixed or modified commits, several processors."""
    records = [source.provenance for source in _sources(study)]
    warnings = []
    for key, what in (("commit", "commits"), ("cpu", "processors")):
        values = sorted({str(record[key]) for record in records if record.get(key)})
        if len(values) > 1:
            warnings.append(f"The results come from several {what}: {', '.join(values)}.")
    if any(str(record.get("commit", "")).endswith("-dirty") for record in records):
        warnings.append("Some results were made with changes that were not committed (-dirty).")
    return warnings
