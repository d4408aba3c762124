"""What a workflow step's code depends on: the library files that its script imports, and what they say."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from autoprivacy.errors import UserError


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def sources(script: str, root: str) -> list[str]:
    """The files under `root` that `script` imports, directly or through another, packages' __init__.py included.

    Modules that a config names at run time are not seen here: see `model_sources`.
    """
    found: set[Path] = set()
    waiting = [Path(script)]
    while waiting:
        for name in _imported(ast.parse(waiting.pop().read_text())):
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                base = Path(root, *parts[:length])
                for candidate in (base / "__init__.py", base.with_suffix(".py")):
                    if candidate.exists() and candidate not in found:
                        found.add(candidate)
                        waiting.append(candidate)
    return sorted(str(path) for path in found)


def model_sources(model: str, root: str) -> list[str]:
    """The file of a network that a config names, and the files that it imports from `root` and from beside it.

    Args:
        model: "package.module:function" or "path/to/file.py:function".
        root: folder of the library, where modules are looked for before the Python path.

    Raises:
        UserError: there is no such file or module.
    """
    place = model.rpartition(":")[0]
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UserError(f'network model: "{model}": no file {place} in {Path.cwd()}')
        return sorted({place, *sources(place, root), *sources(place, str(Path(place).parent))})
    for folder in (root, *sys.path):
        base = Path(folder, *place.split("."))
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return sorted({str(candidate), *sources(str(candidate), root)})
    raise UserError(f'network model: "{model}": no module {place} on the Python path; set PYTHONPATH to its folder')


def fingerprint(files: Iterable[str]) -> str:
    """A digest of what Python files mean to Python: comments and docstrings do not count."""
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        tree = ast.parse(Path(path).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(f"{path}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()[:16]
