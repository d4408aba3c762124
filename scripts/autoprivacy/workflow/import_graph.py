"""The rooms of the library and who imports whom: `python -m autoprivacy.workflow.import_graph [--mermaid]`.

A room is a package of `autoprivacy`, of `autoprivacy.he`, or a single module beside them. Imports go one way: a room
may import those that stand before it in ROOMS. Imports for annotations alone (under TYPE_CHECKING) are not counted.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
# From the ground up: a room imports none that stands after it.
ROOMS = (
    *("compiled", "errors", "programs", "backend", "memory", "storage", "timing", "link"),
    *("data", "workflow", "kernel_cache", "randomness"),
    *("networks", "training"),
    "he.ring",
    "quantization",
    *("he.parameters", "he.packing", "he.bfv", "he.profiling"),
    *("ot", "gc", "lookup"),
    *("selection", "search"),
    "protocol",
    *("cli", "bench", "report", "reference", "__main__"),
)
# Rooms that know nothing of others, although those stand before them.
APART = {
    **dict.fromkeys(("ot", "gc", "lookup"), ("he.ring", "he.parameters", "he.packing", "he.bfv", "he.profiling")),
    "report": tuple(room for room in ROOMS if room not in ("errors", "storage", "report")),  # reads files only
}

Graph = dict[str, set[str]]


def modules(library: Path = LIBRARY) -> dict[str, Path]:
    """The library's modules by name within it, packages under their own."""
    found = {}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def module_graph(library: Path = LIBRARY) -> Graph:
    """Per module those of the library that it imports."""
    found = modules(library)
    return {name: set(_imported(path, found)) & found.keys() - {name} for name, path in found.items()}


def _imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            longer = [_within(f"{node.module}.{alias.name}") for alias in node.names]
            yield from (name if name in known else _within(node.module) for name in longer)
        elif isinstance(node, ast.Import):
            yield from (_within(alias.name) for alias in node.names)


def _within(name: str) -> str:
    """A module's name within the library; what is not of the library gets no name of it."""
    return name.removeprefix("autoprivacy.") if name.startswith("autoprivacy.") else f"other.{name}"


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _statements(node)


def room_of(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "he" else parts[0]


def room_graph(graph: Mapping[str, set[str]]) -> Graph:
    """Per room those that its modules import."""
    rooms: Graph = {}
    for module, imported in graph.items():
        own = rooms.setdefault(room_of(module), set())
        own.update(room_of(other) for other in imported if room_of(other) != room_of(module))
    return {room: others for room, others in rooms.items() if room and room != "he"}


def faults(library: Path = LIBRARY) -> list[str]:
    """What breaks the rules, a line each: arrows upward or between rooms apart, unknown rooms, circles of modules."""
    graph = module_graph(library)
    lines = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        lines.append(f"circle of modules: {' <- '.join(error.args[1])}")
    for module, imported in graph.items():
        room = room_of(module)
        if room not in ("", "he", *ROOMS):
            lines.append(f"{module}: the room {room} has no place in ROOMS")
            continue
        for other in sorted(imported):
            target = room_of(other)
            if target in ROOMS and room in ROOMS and ROOMS.index(target) > ROOMS.index(room):
                lines.append(f"{module} imports {other}: upward from {room} to {target}")
            elif target in APART.get(room, ()):
                lines.append(f"{module} imports {other}: {room} is to know nothing of {target}")
    return lines


def _listing(rooms: Mapping[str, set[str]]) -> Iterator[str]:
    for room in ROOMS:
        if room in rooms:
            yield f"{room}: {', '.join(sorted(rooms[room], key=ROOMS.index)) or '-'}"


def _mermaid(rooms: Mapping[str, set[str]]) -> Iterator[str]:
    yield "graph BT"
    for room in ROOMS:
        for other in sorted(rooms.get(room, ()), key=ROOMS.index):
            yield f"  {room} --> {other}"


def main() -> None:
    """Lists the rooms, from the ground up, with what each imports."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mermaid", action="store_true", help="the same as a Mermaid graph")
    rooms = room_graph(module_graph())
    print("\n".join((_mermaid if parser.parse_args().mermaid else _listing)(rooms)))
    if wrong := faults():
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
