"""What a workflow step's code depends on: the library files that its script imports, and what they say."""

from __future__ import annotations

import ast
import hashlib
import os
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

    Modules that a config names at run time (networks) are not seen here; rules add them themselves.
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


def model_file(model: str) -> str:
    """The file of the function that a network's `model` ("package.module:function") names, found without importing it.

    Raises:
        UserError: no such module on the Python path.
    """
    module = model.partition(":")[0]
    for folder in sys.path:
        base = Path(folder, *module.split("."))
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return os.path.relpath(candidate)
    raise UserError(f'network model: "{model}": no module {module} on the Python path; set PYTHONPATH or mend the name')


def fingerprint(scripts: Iterable[str], root: str) -> str:
    """A digest of what `scripts` and the files they import mean to Python: comments and docstrings do not count."""
    files = sorted({path for script in scripts for path in (script, *sources(script, root))})
    digest = hashlib.sha256()
    for path in files:
        tree = ast.parse(Path(path).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(f"{path}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()[:16]
