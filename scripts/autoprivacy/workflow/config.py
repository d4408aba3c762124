"""The configuration: checked against config/schema.yaml, defaults filled in, mistakes told in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from autoprivacy.data.cifar import NAMES
from autoprivacy.errors import UserError
from autoprivacy.workflow.config_origin import Origin
from autoprivacy.workflow.config_types import meant

SCHEMA = Path(__file__).parents[3] / "config" / "schema.yaml"


def load_schema() -> dict[str, Any]:
    """config/schema.yaml with its shared definitions ($defs) in the places that refer to them."""
    schema = yaml.safe_load(SCHEMA.read_text())
    definitions = schema.pop("$defs")

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, dict):
            return part
        shared = definitions[part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else {}
        return {**shared, **{key: resolved(value) for key, value in part.items() if key != "$ref"}}

    found: dict[str, Any] = resolved(schema)
    return found


def complete(config: dict[str, Any], files: Sequence[str | Path] | Origin = ()) -> dict[str, Any]:
    """A checked copy of `config` with every default filled in.

    Args:
        config: as merged from `files` and the command line.
        files: where it came from, in the order of merging; named in messages.

    Raises:
        UserError: the first mistake, as one line: where, got, allowed, file.
    """
    schema = load_schema()
    origin = files if isinstance(files, Origin) else Origin(files)
    config = meant(copy.deepcopy(config), schema, origin)
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda error: str(error.absolute_path))
    if errors:
        raise UserError(_line(errors[0], origin))
    _fill(config, schema)
    _check_names(config, origin)
    run = config["run"]
    kind = config["selection"]["plaintext"]["kind"]
    if kind == "power_of_two" and "slot" in run["packings"]:
        allowed = "another where run.packings has slot, whose plaintext modulus is to be a prime == 1 mod 2n"
        raise UserError(message(("selection", "plaintext", "kind"), kind, allowed, origin))
    if kind == "composite" and "coefficient" in run["packings"]:
        allowed = "another where run.packings has coefficient, which takes any p as it is"
        raise UserError(message(("selection", "plaintext", "kind"), kind, allowed, origin))
    if "tolerant" in run["schemes"] and "coefficient" not in run["packings"]:
        allowed = "coefficient among them, as the scheme tolerant is made in it; or leave that out of run.schemes"
        raise UserError(message(("run", "packings"), repr(run["packings"]), allowed, origin))
    return config


def search_settings(config: Mapping[str, Any], network: str) -> dict[str, Any]:
    """The part `search` of a complete config as it is for one network."""
    own = {key: value for key, value in config["networks"][network]["search"].items() if value is not None}
    return {**config["search"], **own}


def _check_names(config: dict[str, Any], origin: Origin) -> None:
    """Names of networks and data sets that stand elsewhere in the configuration than where they are defined."""
    networks, datasets = config["networks"], [*NAMES, *config["datasets"]]
    for part in ("run", "parameters_table", "latency_comparison"):
        for name in config[part]["networks"] or ():
            _check_name((part, "networks"), name, networks, "a key of networks", origin)
    left_out, schemes = config["measure"]["leave_out"], config["run"]["schemes"]
    if set(schemes) <= set(left_out):
        allowed = f"not every one of run.schemes, {_listed(schemes)}"
        raise UserError(message(("measure", "leave_out"), repr(left_out), allowed, origin))
    elsewhere = {
        ("search", "comparison", "networks"): config["search"]["comparison"]["networks"],
        ("sampling", "networks"): config["sampling"]["networks"],
        ("tolerance", "networks"): config["tolerance"]["networks"],
        ("measure", "linked_networks"): config["measure"]["linked_networks"],
        ("sensitivity", "network"): [config["sensitivity"]["network"]] if config["sensitivity"]["network"] else None,
    }
    for path, names in elsewhere.items():
        for name in names or ():
            _check_name(path, name, networks, "a key of networks", origin)
    settings = config["network_settings"]
    for name in config["measure"]["network_settings"]:
        _check_name(("measure", "network_settings"), name, settings, "a key of network_settings", origin)
    for name, setting in settings.items():
        if setting["round_trip_seconds"] and setting["bits_per_second"] is None:
            allowed = "a throughput, where round_trip_seconds is above 0"
            raise UserError(message(("network_settings", name, "bits_per_second"), "null", allowed, origin))
    for name in config["datasets"]:
        if name in NAMES:
            raise UserError(message(("datasets", name), "a built-in data set's name", "any other name", origin))
    for network, entry in networks.items():
        where = ("networks", network)
        _check_name((*where, "dataset"), entry["dataset"], datasets, "built-in or a key of datasets", origin)
        if distillation := entry["training"]["distillation"]:
            same = ("dataset", "classes")
            teachers = [n for n, e in networks.items() if n != network and all(e[key] == entry[key] for key in same)]
            path = (*where, "training", "distillation", "teacher")
            words = "another network with the same dataset and classes"
            _check_name(path, distillation["teacher"], teachers, words, origin)


def _check_name(path: tuple[str, ...], name: str, known: Iterable[str], words: str, origin: Origin) -> None:
    if name not in known:
        raise UserError(message(path, f'"{name}"', f"{words}: {_listed(known) or 'there is none'}", origin))


def _fill(value: dict[str, Any], schema: dict[str, Any]) -> None:
    for key, sub in schema.get("properties", {}).items():
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if key in value and isinstance(value[key], dict):
            _fill(value[key], sub)
    general = schema.get("additionalProperties")
    if isinstance(general, dict):
        for key in value:
            _fill(value[key], general)


def _line(error: ValidationError, origin: Origin) -> str:
    path = tuple(error.absolute_path)
    schema: Any = error.schema
    if error.validator == "additionalProperties":
        known = schema["properties"]
        unknown = next(key for key in error.instance if key not in known)
        return message((*path, unknown), "an unknown key", _listed(known), origin)
    if error.validator == "required":
        missing = next(key for key in schema["required"] if key not in error.instance)
        return message((*path, missing), "nothing", schema["properties"][missing].get("description", "a value"), origin)
    value = error.instance if isinstance(error.instance, str | int | float) else None
    return message(path, repr(error.instance), _allowed(error), origin, value)


def _allowed(error: ValidationError) -> str:
    schema: Any = error.schema
    if error.validator == "enum":
        return _listed(schema["enum"])
    if error.validator == "pattern":
        return f"{schema.get('description', 'text')} (pattern {schema['pattern']})"
    bounds = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
        "minItems": "items: at least",
        "minProperties": "entries: at least",
        "maxProperties": "entries: at most",
    }
    kinds = schema.get("type", "value")
    words = [kinds if isinstance(kinds, str) else " or ".join(kinds)]
    words += [f"{text} {schema[key]}" for key, text in bounds.items() if key in schema]
    return ", ".join([*words, "no value twice"] if error.validator == "uniqueItems" else words)


def message(path: tuple[str | int, ...], got: str, allowed: str, origin: Origin | None, value: Any = None) -> str:
    """One line: where in the config, got, allowed, and the file and line that it comes from."""
    where = ".".join(str(part) for part in path) or "the configuration"
    return f"config: {where}: got {got}; allowed: {allowed}; file: {(origin or Origin()).find(path, value)}"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def keys(schema: dict[str, Any] | None = None, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the schema with its entry, depth first: `networks.<name>.model` and so on."""
    schema = load_schema() if schema is None else schema
    for key, sub in schema.get("properties", {}).items():
        yield prefix + key, sub
        yield from keys(sub, f"{prefix}{key}.")
    general = schema.get("additionalProperties")
    if isinstance(general, dict):
        yield from keys(general, f"{prefix}<name>.")
