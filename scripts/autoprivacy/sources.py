"""The library files that a script imports, followed through the library: what a workflow step depends on."""

from __future__ import annotations

import ast
from pathlib import Path


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
