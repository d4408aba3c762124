"""Where a value of the configuration comes from: file and line; and what YAML itself lets pass in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from autoprivacy.errors import UserError

KeyPath = tuple[str | int, ...]
MERGE = "<<"  # YAML's key for taking over another mapping's entries


class Origin:
    """The config's files, in the order in which they are merged.

    Args:
        files: a later one comes before an earlier one.

    Raises:
        UserError: a file is missing or no YAML, or sets a key twice.
    """

    def __init__(self, files: Sequence[str | Path] = ()) -> None:
        self.files = tuple(files)
        self._trees = [_tree(file) for file in files]
        for file, tree in zip(self.files, self._trees, strict=True):
            _check_once(str(file), tree, ())

    def find(self, path: KeyPath, value: Any = None) -> str:
        """`file, line n` of the last file that sets a key, or its last ancestor that is set.

        Args:
            path: of the key.
            value: what the config has there; where the file has another, the command line has changed it.
        """
        if not self.files:
            return "unknown"
        for file, tree in zip(reversed(self.files), reversed(self._trees), strict=True):
            node = _at(tree, path)
            if node is not None:
                if value is not None and isinstance(node, yaml.ScalarNode) and _changed(node, value):
                    return "the command line (--config)"
                return f"{file}, line {node.start_mark.line + 1}"
        return "none, a default or the command line (--config)" if path else str(self.files[-1])

    def text(self, path: KeyPath) -> str | None:
        """How the last part of a path is written in the last file that has it: a scalar, or the key of a mapping."""
        for tree in reversed(self._trees):
            node = _at(tree, path)
            if isinstance(node, yaml.ScalarNode):
                return node.value
            parent = _at(tree, path[:-1]) if path else None
            if isinstance(parent, yaml.MappingNode):
                for key, _ in parent.value:
                    if yaml.safe_load(key.value) == path[-1] and not isinstance(path[-1], str):
                        return key.value
        return None


def _changed(node: yaml.ScalarNode, value: Any) -> bool:
    return str(yaml.safe_load(node.value) if node.style is None else node.value) != str(value) and node.value != str(
        value
    )


def _tree(file: str | Path) -> yaml.Node | None:
    try:
        text = Path(file).read_text()
    except FileNotFoundError:
        raise UserError(f"config: {file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config: {file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        found = text.splitlines()[line] if line < len(text.splitlines()) else ""
        reason = (
            "a tab; YAML takes spaces alone to indent"
            if "\t" in found[: len(found) - len(found.lstrip())]
            else error.problem
        )
        raise UserError(f"config: {file}, line {line + 1}: not valid YAML: {reason}") from None
    except yaml.YAMLError as error:
        raise UserError(f"config: {file}: not valid YAML: {' '.join(str(error).split())}") from None


def _check_once(file: str, node: yaml.Node | None, path: KeyPath) -> None:
    """UserError for a key that a mapping has twice: YAML takes the second in silence."""
    if isinstance(node, yaml.SequenceNode):
        for index, part in enumerate(node.value):
            _check_once(file, part, (*path, index))
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in lines and key.value != MERGE:
            place = ".".join(map(str, (*path, key.value)))
            raise UserError(f"config: {place}: set twice, in lines {lines[key.value]} and {line} of {file}; keep one")
        lines[key.value] = line
        _check_once(file, value, (*path, key.value))


def _at(node: yaml.Node | None, path: KeyPath) -> yaml.Node | None:
    """The node of a key, or of an item of a list; entries that a merge brings count."""
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part] if part < len(node.value) else None
        elif isinstance(node, yaml.MappingNode):
            node = _entry(node, str(part))
        else:
            return None
    return node


def _entry(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    merged = None
    for key, value in node.value:
        if key.value == name:
            return value
        if key.value == MERGE:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if merged is None and isinstance(source, yaml.MappingNode):
                    merged = _entry(source, name)
    return merged
