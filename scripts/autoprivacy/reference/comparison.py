"""A study's results beside the reference run's and the paper's: what must be equal, what may differ by how much.

`compare` gives one `Check` a kind of result and `verdicts` a row a claim; `reference.compare` prints them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.report.text import change, megabytes, significant
from autoprivacy.storage import read_rows

# The result files that are compared, below a study's folder.
PARAMETERS, PUBLISHED, ACCURACY = "tables/parameters.csv", "published-sets.csv", "accuracy.csv"
INFERENCE, CLAIMS = "tables/table2.csv", "claims.csv"
COMPARED = (PARAMETERS, PUBLISHED, ACCURACY, INFERENCE, CLAIMS)

BYTES_TOLERANCE = 0.02  # of the reference's bytes: packed replies and sets follow the machine's profile a little
TIME_FACTOR = 1.5  # around the factor between the two machines
LAYER = ("network", "scheme", "packing", "layer")
CHOSEN = ("plaintext_modulus", "polynomial_degree", "primes", "ignored_share_bits")
TOLD = ("network", "scheme", "packing", "stage")
RUN = ("network", "scheme", "packing", "flooding", "network_setting")
Row = dict[str, str]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """How results of one kind stand beside the reference's.

    Attributes:
        what: the kind.
        rule: when a row agrees, for people.
        compared: rows that both have.
        outside: of the rows that disagree, one line each.
        only_here, only_there: rows that one of them lacks.
    """

    what: str
    rule: str
    compared: int
    outside: tuple[str, ...]
    only_here: int
    only_there: int

    @property
    def agrees(self) -> bool:
        """Whether all rows of the reference are there and agree."""
        return not self.outside and not self.only_there

    @property
    def line(self) -> str:
        """The check in one line."""
        lacking = [f"{self.only_here} not in the reference"] if self.only_here else []
        lacking += [f"{self.only_there} only in the reference"] if self.only_there else []
        agreeing = f"{self.compared - len(self.outside)} of {self.compared} agree"
        return f"{self.what} ({self.rule}): {', '.join([agreeing, *lacking])}"


def compare(own: Path, reference: Path) -> list[Check]:
    """The checks of a study's results, folder `own`, against the same study's in the folder `reference`.

    Raises:
        UserError: a file is missing or damaged.
    """
    both = {name: (read_rows(own / name), read_rows(reference / name)) for name in COMPARED[:-1]}
    ratio = machine_factor(*both[INFERENCE])
    own_exact, own_searched = _by_approximation(both[PARAMETERS][0])
    exact, searched = _by_approximation(both[PARAMETERS][1])
    return [
        _check("parameters by rules", "p, n, primes of q, bits: equal", own_exact, exact, LAYER, _differing(CHOSEN)),
        _check(
            "parameters by searches",
            "equal, where the profile leads to the same policy",
            own_searched,
            searched,
            LAYER,
            _differing(CHOSEN),
        ),
        _check("security of layers", "128 bits or more; equal where the set is", *both[PARAMETERS], LAYER, _insecure),
        _published(*both[PUBLISHED]),
        _check("accuracies", "95% intervals meet", *both[ACCURACY], TOLD, _apart),
        _check("bytes an image", f"within {BYTES_TOLERANCE:.0%}", *both[INFERENCE], RUN, _bytes_apart),
        _check(
            "seconds an image",
            f"within a factor of {TIME_FACTOR} of the reference's times {significant(ratio)}, the median of all rows",
            *both[INFERENCE],
            RUN,
            _slower(ratio),
        ),
    ]


Judge = Callable[[Row, Row], str]  # what a row's disagreement is; empty when it agrees


def _check(
    what: str, rule: str, own: Sequence[Row], reference: Sequence[Row], key: Sequence[str], judge: Judge
) -> Check:
    here, there = _by(own, key), _by(reference, key)
    shared = [name for name in here if name in there]
    try:
        told = [(name, judge(here[name], there[name])) for name in shared]
    except (KeyError, ValueError) as error:
        raise UserError(f"{what}: a table is damaged or of another version ({error}); make it again") from None
    outside = tuple(f"{' '.join(filter(None, name))}: {text}" for name, text in told if text)
    return Check(what, rule, len(shared), outside, len(here) - len(shared), len(there) - len(shared))


def _by_approximation(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of exact schemes, which follow rules, and of approximate ones, which searches find."""
    approximate = [row["approximate"] == "True" for row in rows]
    return list(compress(rows, [not value for value in approximate])), list(compress(rows, approximate))


def _by(rows: Iterable[Row], key: Sequence[str]) -> dict[Key, Row]:
    try:
        return {tuple(row[column] for column in key): row for row in rows}
    except KeyError as error:
        raise UserError(f"a table without the column {error}: of another version; make it again") from None


def _differing(columns: Sequence[str]) -> Judge:
    def judge(own: Row, reference: Row) -> str:
        changed = [column for column in columns if own[column] != reference[column]]
        return ", ".join(f"{column} {own[column]}, reference {reference[column]}" for column in changed)

    return judge


def _insecure(own: Row, reference: Row) -> str:
    bits, expected = float(own["security_bits"]), float(reference["security_bits"])
    if bits < 128:
        return f"{bits:.1f} bits"
    same = all(own[column] == reference[column] for column in ("polynomial_degree", "log2_q"))
    return f"{bits} bits, reference {expected}" if same and bits != expected else ""


def _published(own: Sequence[Row], reference: Sequence[Row]) -> Check:
    key = ("system", "reading", "network", "packing", "layer")
    return _check("published sets", "security and error rates: equal", own, reference, key, _differing(tuple(own[0])))


def _apart(own: Row, reference: Row) -> str:
    here, there = float(own["accuracy_percent"]), float(reference["accuracy_percent"])
    reach = float(own["interval_percent"]) + float(reference["interval_percent"])
    return "" if abs(here - there) <= reach else f"{here}%, reference {there}%"


def _bytes_apart(own: Row, reference: Row) -> str:
    here, there = float(own["m_total_bytes"]), float(reference["m_total_bytes"])
    if abs(here - there) <= BYTES_TOLERANCE * there:
        return ""
    return f"{megabytes(here)} MB, reference {megabytes(there)} ({change(here, there)})"


def machine_factor(own: Sequence[Row], reference: Sequence[Row]) -> float:
    """The median, over all measurements that both have, of seconds here by seconds there; 1 where none is shared."""
    here, there = _by(own, RUN), _by(reference, RUN)
    ratios = [_seconds(here[name]) / _seconds(there[name]) for name in here if name in there]
    return statistics.median(ratios) if ratios else 1.0


def _seconds(row: Row) -> float:
    return float(row["t_total_seconds"])


def _slower(ratio: float) -> Judge:
    def judge(own: Row, reference: Row) -> str:
        here, there = _seconds(own), _seconds(reference)
        if 1 / TIME_FACTOR <= here / there / ratio <= TIME_FACTOR:
            return ""
        return f"{significant(here)} s, reference {significant(there)} s, {significant(here / there)} times"

    return judge


def inference_rows(own: Path, reference: Path) -> list[list[str]]:
    """Of every measurement of a study: seconds and gigabytes of the paper, of the reference, and here."""
    there: dict[Key, Row] = _by(read_rows(reference / INFERENCE), RUN)
    nothing = {"t_total_seconds": "", "m_total_bytes": ""}
    cells = []
    for name, row in _by(read_rows(own / INFERENCE), RUN).items():
        other = there.get(name, nothing)
        cells.append(
            [
                " ".join(filter(None, (row["network"], row["scheme"], row["packing"], row["network_setting"]))),
                _number(row["paper_t_total_seconds"]),
                _number(other["t_total_seconds"]),
                _number(row["t_total_seconds"]),
                _number(row["paper_m_total_gigabytes"]),
                _number(other["m_total_bytes"], 1e9),
                _number(row["m_total_bytes"], 1e9),
            ]
        )
    return cells


def _number(text: str, unit: float = 1.0) -> str:
    return significant(float(text) / unit) if text else ""


@dataclass(frozen=True)
class ClaimBeside:
    """A claim's verdict here beside the reference's.

    Attributes:
        states: the claim.
        verdict, measured: here.
        expected, expected_measured: in the reference; empty where it has no such claim.
    """

    states: str
    verdict: str
    measured: str
    expected: str
    expected_measured: str

    @property
    def same(self) -> bool:
        """Whether both verdicts are one."""
        return self.verdict == self.expected

    @property
    def line(self) -> str:
        """The claim in one line."""
        here = f"{self.verdict} ({self.measured})"
        if self.same:
            return f"same    {self.states}: {here}; reference {self.expected_measured}"
        return f"DIFFERS {self.states}: {here}; reference {self.expected or 'without it'} ({self.expected_measured})"


def verdicts(own: Path, reference: Path) -> list[ClaimBeside]:
    """Every claim of a study beside the reference's."""
    there = _by(read_rows(reference / CLAIMS), ("claim",))
    nothing = {"verdict": "", "measured": ""}
    rows = []
    for name, row in _by(read_rows(own / CLAIMS), ("claim",)).items():
        other = there.get(name, nothing)
        rows.append(ClaimBeside(row["states"], row["verdict"], row["measured"], other["verdict"], other["measured"]))
    return rows
