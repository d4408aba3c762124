"""What a workflow step's code depends on: the library files that its script imports, and what they mean to Python."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from autoprivacy.errors import UserError
from autoprivacy.storage import atomic_write

# A file changed so shortly before it is read may change again within one tick of the file system's clock.
SETTLED_SECONDS = 2.0
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: a digest of its syntax tree without docstrings, and the names that it imports."""

    digest: str
    imports: tuple[str, ...]


@dataclass
class SourceFiles:
    """The Python files of a library and of the networks that a config names, each parsed at most once.

    Attributes:
        root: folder of the library, where imported modules are looked for.
        cache: file that keeps digests and imports for the next process, by path and by time and size of the file;
            None for none. One that is damaged or cannot be written is ignored: the files are parsed then.
    """

    root: Path
    cache: Path | None = None
    _sources: dict[Path, Source] = field(default_factory=dict)
    _modules: dict[tuple[str, Path], list[Path]] = field(default_factory=dict)
    _cache_is_behind: bool = False

    def imported(self, script: str | Path, root: Path | None = None) -> list[Path]:
        """The files under `root` that `script` imports, directly or through another, packages' __init__.py included.

        Modules that a config names at run time are not seen here: see `of_model`.
        """
        found: set[Path] = set()
        waiting = [Path(script)]
        while waiting:
            for name in self._source(waiting.pop()).imports:
                new = set(self._files(name, root or self.root)) - found
                found |= new
                waiting += new
        return sorted(found)

    def of_model(self, model: str) -> list[Path]:
        """The file of a network that a config names, and the files that it imports from `root` and from beside it.

        Args:
            model: "package.module:function" or "path/to/file.py:function", or "path/to/file.onnx"; a module is looked
                for in `root` first, then on the Python path.

        Raises:
            UserError: there is no such file or module, or it is not Python.
        """
        if model.endswith(".onnx"):
            if not Path(model).is_file():
                raise UserError(f'network model: "{model}": no such file in {Path.cwd()}')
            return [Path(model)]
        place = model.rpartition(":")[0]
        if place.endswith(".py"):
            file = Path(place)
            if not file.is_file():
                raise UserError(f'network model: "{model}": no file {place} in {Path.cwd()}')
            return sorted({file, *self.imported(file), *self.imported(file, file.parent)})
        for folder in (str(self.root), *sys.path):
            base = Path(folder, *place.split("."))
            for candidate in (base.with_suffix(".py"), base / "__init__.py"):
                if candidate.is_file():
                    return sorted({candidate, *self.imported(candidate)})
        raise UserError(f'network model: "{model}": no module {place} on the Python path; set PYTHONPATH to its folder')

    def fingerprint(self, files: Iterable[str | Path]) -> str:
        """A digest of what Python files mean to Python: comments and docstrings do not count, nor where they lie."""
        digest = hashlib.sha256()
        for path in sorted(set(map(Path, files))):
            name = path.relative_to(self.root) if path.is_relative_to(self.root) else path.name
            digest.update(f"{name}\0{self._source(path).digest}\0".encode())
        return digest.hexdigest()[:16]

    def save(self) -> None:
        """Write the cache where files were parsed that it does not have."""
        if self.cache is None or not self._cache_is_behind:
            return
        files = {path: record for path, record in self._kept.items() if os.path.exists(path)}
        try:
            with atomic_write(self.cache) as stream:
                stream.write(json.dumps({"made_by": _made_by(), "files": files}).encode())
        except OSError:  # a folder that cannot be written: the next process parses again
            pass

    @cached_property
    def _kept(self) -> dict[str, list]:
        """The cache's records: path -> (time of change, time of the inode's change, size, digest, imports)."""
        try:
            content = json.loads(self.cache.read_bytes()) if self.cache else {}
            return content["files"] if content["made_by"] == _made_by() else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _files(self, name: str, root: Path) -> list[Path]:
        """The files under `root` that an import of the dotted `name` runs."""
        key = (name, root)
        if key not in self._modules:
            parts = name.split(".")
            bases = [root.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
            candidates = [file for base in bases for file in (base / "__init__.py", base.with_suffix(".py"))]
            self._modules[key] = [file for file in candidates if file.exists()]
        return self._modules[key]

    def _source(self, path: Path) -> Source:
        if path not in self._sources:
            status = os.stat(path)  # before it is read: a change after this has another time
            state = [status.st_mtime_ns, status.st_ctime_ns, status.st_size]
            record = self._kept.get(str(path))
            if record and record[:3] == state:
                self._sources[path] = Source(record[3], tuple(record[4]))
            else:
                source = self._sources[path] = _parsed(path)
                if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
                    self._kept[str(path)] = [*state, source.digest, source.imports]
                    self._cache_is_behind = True
        return self._sources[path]


def _parsed(path: Path) -> Source:
    if path.suffix == ".onnx":
        return Source(hashlib.sha256(path.read_bytes()).hexdigest(), ())
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not valid Python ({error}); correct the file") from None
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports.add(node.module)
            imports.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(sorted(imports)))


def _made_by() -> str:
    """What made a cache: this file and this Python, as another may parse or digest otherwise."""
    return hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).hexdigest()
