"""Result files read and checked: what every table, figure and page of the report is made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autoprivacy.errors import UserError
from autoprivacy.storage import read_json, read_rows

ACCURACY_TEXT = ("network", "scheme", "packing", "stage")
ACCURACY_NUMBERS = ("accuracy_percent", "images", "interval_percent")
SEARCH_NUMBERS = ("episode", "reward", "latency_seconds")
SEARCH_BEST = ("best_episode", "best_reward", "best_latency_seconds")
COMPARISON_NUMBERS = (
    "seed",
    "evaluations",
    "accuracy_percent",
    "latency_seconds",
    "chosen_accuracy_percent",
    "held_out_accuracy_percent",
)
PARTIES = ("client", "server")
# Columns that hold numbers, by the experiment whose table it is.
NUMBERS = {
    "multiplication": (
        "polynomial_degree",
        "log2_q",
        "seconds_median",
        "seconds_lower_quartile",
        "seconds_upper_quartile",
    ),
    "sensitivity": ("level",),
    "wraps": ("plaintext_bits", "wrapped_percent", "accuracy_percent", "interval_percent"),
    "tolerance": ("level", "difference_points", "low_points", "high_points", "images"),
    "sampling": ("target", "samples"),
}


@dataclass(frozen=True)
class Scheme:
    """What the report knows of a scheme.

    Attributes:
        accuracy_stage: the stage of accuracy.csv with the accuracy of what the scheme deploys.
        colour: of the palette of Okabe and Ito, which people with colour-blindness can tell apart.
        marker: matplotlib's marker, so that colour is not the only difference.
        size: of the marker in points; earlier schemes are larger, so that markers on one spot all show.
        line: matplotlib's line style.
        searched: whose latency its search limits.
    """

    accuracy_stage: str
    colour: str
    marker: str
    size: float
    line: str
    searched: str = "linear layers"


# The baseline of every comparison comes first, as in the paper's Table 2.
SCHEMES = {
    "delphi": Scheme("integer", "#D55E00", "s", 11, "-"),
    "delphi-worst-case": Scheme("integer", "#CC79A7", "D", 9, "-."),
    "darl": Scheme("integer", "#0072B2", "^", 8, "--"),
    "autoprivacy": Scheme("errors_finetuned", "#000000", "o", 4.5, "-"),
    "autoprivacy+": Scheme("integer", "#E69F00", "P", 4, "-"),
    "tolerant": Scheme("errors_finetuned", "#009E73", "v", 3.5, ":", "linear layers and circuits"),
}
BASELINE = next(iter(SCHEMES))


def scheme(name: str) -> Scheme:
    """The scheme of that name; UserError for an unknown one."""
    if name not in SCHEMES:
        raise UserError(
            f'report: scheme "{name}" is unknown; allowed: {", ".join(SCHEMES)}; add it to report/results.py'
        )
    return SCHEMES[name]


@dataclass(frozen=True)
class ResultFile:
    """A JSON result and where it was read; every access names the file when something is missing."""

    path: str
    value: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> ResultFile:
        """Read one file; UserError when it is missing, damaged or not a JSON object."""
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: got a JSON {type(value).__name__}; expected an object; make the file again")
        return cls(str(path), value)

    def get(self, *keys: str | int) -> Any:
        """The entry under the keys; UserError when there is none."""
        entry: Any = self.value
        for key in keys:
            try:
                entry = entry[key]
            except (KeyError, IndexError, TypeError):
                raise UserError(f"{self.path}: {_dotted(keys)} is missing; make the file again") from None
        return entry

    def number(self, *keys: str | int) -> float:
        """The finite number under the keys; UserError when it is missing or not one."""
        return finite(self.get(*keys), f"{self.path}: {_dotted(keys)}")

    @property
    def network(self) -> str:
        """The network that the result is about."""
        return str(self.get("network"))

    @property
    def scheme(self) -> str:
        """The scheme that the result is about."""
        return str(self.get("scheme"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the result came from; empty when it was not recorded (a policy written by hand)."""
        return dict(self.value.get("provenance") or {})


def finite(value: Any, where: str) -> float:
    """`value` as a finite float; UserError that says where it stands otherwise."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: got {value!r}; expected a finite number; make the file again")
    return number


def read_table(path: str | Path, text: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a CSV file, one or more, as dicts in the order of its columns.

    Args:
        text: columns that must be there.
        numbers: columns that must be there and hold finite numbers; they come back as floats, all others as text.

    Raises:
        UserError: the file or a column is missing, it has no rows, or a number is none.
    """
    rows: list[dict[str, Any]] = [dict(row) for row in read_rows(path)]
    columns = list(rows[0])
    missing = [name for name in (*text, *numbers) if name not in columns]
    if missing:
        raise UserError(f"{path}: no columns {', '.join(missing)}; got {', '.join(columns)}; make the file again")
    for line, row in enumerate(rows, start=2):  # the header is line 1
        for name in numbers:
            row[name] = finite(row[name], f"{path}: line {line}: {name}")
    return rows


def read_accuracy(path: str | Path) -> list[dict[str, Any]]:
    """The rows of accuracy.csv."""
    return read_table(path, ACCURACY_TEXT, ACCURACY_NUMBERS)


def read_search(path: str | Path) -> list[dict[str, Any]]:
    """The episodes of a search/<network>/<scheme>-<packing>.csv.

    The best so far is NaN as long as no policy met the budget.
    """
    rows = read_table(path, text=("within_budget", *SEARCH_BEST), numbers=SEARCH_NUMBERS)
    for line, row in enumerate(rows, start=2):
        for name in SEARCH_BEST:
            row[name] = finite(row[name], f"{path}: line {line}: {name}") if row[name] else math.nan
    return rows


def searched(path: str | Path) -> tuple[str, str, str]:
    """Network, scheme and packing of a search/<network>/<scheme>-<packing>.csv."""
    of, _, packing = Path(path).stem.rpartition("-")
    return Path(path).parent.name, of, packing


def read_comparison(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a comparison/<network>/<seed>.csv."""
    return read_table(path, ("network", "strategy"), COMPARISON_NUMBERS)


def read_paper(path: str | Path) -> dict[str, Any]:
    """The paper's numbers (config/paper.yaml describes itself); UserError when the file is missing or damaged."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}); restore the file") from None
    expected = ("citation", "setting", "he_share_percent", "table1", "table2", "table3", "claims")
    missing = [key for key in expected if not isinstance(value, dict) or key not in value]
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing; restore the file")
    return value


def by_network(files: Sequence[ResultFile]) -> dict[str, list[ResultFile]]:
    """The files grouped by network, in the order in which networks first appear."""
    groups: dict[str, list[ResultFile]] = {}
    for file in files:
        groups.setdefault(file.network, []).append(file)
    return groups


def _dotted(keys: Sequence[str | int]) -> str:
    return ".".join(str(key) for key in keys)
