"""The tables of README.md, written from the result files of results/reference/ between markers.

`python -m autoprivacy.reference.readme` rewrites them; a test holds the page to the files. A table stands between
`<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.report.text import megabytes, significant
from autoprivacy.storage import read_rows, write_text

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results" / "reference"
_MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = dict[str, str]


def _table(header: Sequence[str], words: int, rows: Iterable[Sequence[str]]) -> str:
    """Markdown of a table whose first `words` columns are words."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *rows))


def _inference(rows: Sequence[Row]) -> str:
    """Seconds, bytes and accuracy of schemes, from rows of Table 2."""
    header = ["network", "scheme", "link", "offline (s)", "online (s)", "offline (MB)", "online (MB)", "accuracy"]
    cells = [
        [
            row["network"],
            row["scheme"],
            row["network_setting"],
            significant(float(row["t_pre_seconds"])),
            significant(float(row["t_on_seconds"])),
            megabytes(float(row["m_pre_bytes"])),
            megabytes(float(row["m_on_bytes"])),
            f"{float(row['accuracy_percent']):.2f}%" + (", exact" if row["exact"] == "True" else ""),
        ]
        for row in rows
    ]
    return _table(header, 3, cells)


def _links(rows: Sequence[Row]) -> str:
    """An exact scheme over links, its parameters chosen for each, beside what was predicted."""
    header = ["network", "link", "predicted (s)", "measured (s)", "of them online", "MB", "of them online"]
    cells = [
        [
            row["network"],
            row["network_setting"],
            significant(float(row["predicted_seconds"])),
            significant(float(row["t_total_seconds"])),
            significant(float(row["t_on_seconds"])),
            megabytes(float(row["m_total_bytes"])),
            megabytes(float(row["m_on_bytes"])),
        ]
        for row in rows
    ]
    return _table(header, 2, cells)


def _peers(rows: Sequence[Row]) -> str:
    """Seconds and bytes beside another system's, from the table of `make compare-peers`."""
    cells = [
        [
            row["network"],
            row["network_setting"],
            row["system"],
            significant(float(row["seconds"])),
            significant(float(row["online_seconds"])) if row["online_seconds"] else "",
            megabytes(float(row["bytes"])) if row["bytes"] else "",
        ]
        for row in rows
    ]
    return _table(["network", "link", "system", "seconds an image", "of them online", "MB"], 3, cells)


# By name: the file of results/reference/ that a table is made of, and how.
TABLES: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "quick": ("quick/tables/table2.csv", _inference),
    "links": ("links.csv", _links),
    "peers": ("peers.csv", _peers),
}


def with_tables(page: str, reference: Path) -> str:
    """A page whose marked tables are those of the reference results.

    Raises:
        UserError: a marker names no table, or its file is missing.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise UserError(f"README.md: table {name}: allowed {', '.join(TABLES)}")
        file, written = TABLES[name]
        return match[1] + written(read_rows(reference / file)) + match[3]

    return _MARKED.sub(replaced, page)


if __name__ == "__main__":
    path = ROOT / "README.md"
    write_text(path, with_tables(path.read_text(), REFERENCE))
