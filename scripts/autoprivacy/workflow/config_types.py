"""Values as their writer meant them where YAML reads another type: numbers as names, 1e-3, numbers in quotes."""

from __future__ import annotations

import re
from typing import Any

from autoprivacy.errors import UserError
from autoprivacy.workflow.config_origin import Origin

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")  # YAML 1.1 takes 1e-3 for text: it wants 1.0e-3


def meant(value: Any, schema: dict[str, Any], origin: Origin, path: tuple[str | int, ...] = ()) -> Any:
    """`value` with names as text and numbers as numbers wherever the schema leaves no doubt.

    Args:
        value: of the configuration, as YAML or the command line gave it; changed in place.
        schema: of the value.
        origin: of the configuration.
        path: of the value.

    Raises:
        UserError: a name is something else to YAML, and its text is not known: on, 010.
    """
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if isinstance(value, dict) and "object" in kinds:
        named = {_name(key, (*path, key), origin): part for key, part in value.items()}
        for key, part in named.items():
            entry = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(entry, dict):
                named[key] = meant(part, entry, origin, (*path, key))
        return named
    if isinstance(value, list) and "items" in schema:
        return [meant(part, schema["items"], origin, (*path, index)) for index, part in enumerate(value)]
    if isinstance(value, str) and kinds & {"number", "integer"} and "string" not in kinds and NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() and ("integer" in kinds or value.lstrip("+-").isdecimal()) else number
    if not isinstance(value, str) and "string" in kinds and not kinds & {"number", "integer", "boolean", "object"}:
        return value if value is None or isinstance(value, dict | list) else _name(value, path, origin)
    return value


def _name(value: Any, path: tuple[str | int, ...], origin: Origin) -> str:
    """The text of a name; of a whole number its digits, where they are how it was written."""
    if isinstance(value, str):
        return value
    text = origin.text(path)
    if isinstance(value, int) and not isinstance(value, bool) and text in (None, str(value)):
        return str(value)
    if path[-1] is value and text is not None:  # a key
        path = (*path[:-1], text)
    place = ".".join(map(str, path))
    raise UserError(
        f"config: {place}: {text or value} is {value!r} of type {type(value).__name__} to YAML, and a name is "
        f"expected; write it in quotes; file: {origin.find(path)}"
    )
