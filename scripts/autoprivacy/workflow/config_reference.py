"""docs/config.md from config/schema.yaml: `python -m autoprivacy.workflow.config_reference` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoprivacy.storage import write_text
from autoprivacy.workflow.config import SCHEMA, keys, load_schema

PAGE = SCHEMA.parents[1] / "docs" / "config.md"
HEAD = """# Every key of the configuration

Made from `config/schema.yaml` by `PYTHONPATH=scripts .venv/bin/python -m autoprivacy.workflow.config_reference`. A
study's file is laid over `config/config.yaml`: what it leaves out stays as it is there. An unknown key is an error, and
the message of a mistake names file and line. `<name>` stands for a name of your own.

| key | allowed | default | meaning |
|---|---|---|---|
"""


def reference() -> str:
    """The page's text."""
    return HEAD + "".join(f"{_row(key, entry)}\n" for key, entry in keys(load_schema()))


def _row(key: str, entry: dict[str, Any]) -> str:
    default = f"`{json.dumps(entry['default'])}`" if "default" in entry and entry["default"] != {} else ""
    meaning = " ".join(str(entry.get("description", "")).split())
    return f"| `{key}` | {_escaped(_allowed(entry))} | {_escaped(default)} | {_escaped(meaning)} |"


def _allowed(entry: dict[str, Any]) -> str:
    if "enum" in entry:
        return ", ".join(f"`{json.dumps(value) if value is None else value}`" for value in entry["enum"])
    kinds = entry.get("type", "")
    words = kinds if isinstance(kinds, str) else " or ".join(kinds)
    items = entry.get("items", {})
    if items:
        words += f" of {_allowed(items)}"
    bounds = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    return ", ".join([words, *(f"{sign} {entry[name]}" for name, sign in bounds.items() if name in entry)])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main(path: Path = PAGE) -> None:
    """Write the page."""
    write_text(path, reference())


if __name__ == "__main__":
    main()
