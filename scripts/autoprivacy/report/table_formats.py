"""Tables as Markdown and LaTeX: one form for all tables of the report that are files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What LaTeX reads as commands.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{MINUS SIGN}": r"$-$",
    "\N{EN DASH}": "--",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
}


@dataclass(frozen=True)
class TextTable:
    """A table of cells for people.

    Attributes:
        title: what it shows.
        caption: machine, settings and how to read it.
        header, rows: the cells; the first `text_columns` of a row are words, the others numbers.
        text_columns: how many columns hold words.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1

    def markdown(self) -> str:
        """The table as Markdown, title above and caption below."""
        rule = [*["---"] * self.text_columns, *["---:"] * (len(self.header) - self.text_columns)]
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
            for line in (self.header, rule, *self.rows)
        ]
        return "\n".join([f"# {self.title}", "", *lines, "", self.caption, ""])

    def latex(self, label: str) -> str:
        """The table as a LaTeX float; it needs the packages booktabs and graphicx."""
        columns = "l" * self.text_columns + "r" * (len(self.header) - self.text_columns)
        head, *body = (" & ".join(map(escape_latex, line)) + r" \\" for line in (self.header, *self.rows))
        return "\n".join(
            [
                "% needs \\usepackage{booktabs, graphicx}",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{escape_latex(self.title)}. {escape_latex(self.caption)}}}",
                rf"\label{{{label}}}",
                r"\resizebox{\textwidth}{!}{%",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table*}",
                "",
            ]
        )


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped; line breaks become spaces."""
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))
