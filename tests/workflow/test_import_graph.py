"""The library's rooms import one way only, and the check sees where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprivacy.workflow.import_graph import ROOMS, faults, main, module_graph, modules, room_graph


def test_imports_go_one_way() -> None:
    assert faults() == []


def test_every_module_of_the_library_is_in_the_graph() -> None:
    names = modules()
    assert {"he.bfv.linear", "errors", "quantization.architecture", "workflow"} <= names.keys()
    assert "he.ring.primes" in module_graph()["he.parameters.parameter_set"]
    assert set(room_graph(module_graph())) <= set(ROOMS)


def test_the_docs_name_every_room() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert [room for room in ROOMS if f"`{room}`" not in text] == []


def library(folder: Path, files: dict[str, str]) -> Path:
    """A library of these modules."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"he/ring/a.py": "from autoprivacy.he.bfv import b", "he/bfv/b.py": ""}, "upward from he.ring to he.bfv"),
        ({"gc/a.py": "import autoprivacy.he.ring.b", "he/ring/b.py": ""}, "gc is to know nothing of he.ring"),
        ({"report/a.py": "from autoprivacy.data.b import c", "data/b.py": ""}, "report is to know nothing of data"),
        ({"attic/a.py": ""}, "the room attic has no place in ROOMS"),
        (
            {"gc/a.py": "def f():\n    from autoprivacy.gc.b import g", "gc/b.py": "from autoprivacy.gc import a"},
            "circle of modules: gc.",
        ),
    ],
)
def test_faults_are_found(files: dict[str, str], fault: str, tmp_path: Path) -> None:
    (line,) = faults(library(tmp_path, files))
    assert fault in line


def test_imports_for_annotations_alone_draw_no_arrow(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from autoprivacy.he.bfv import b\n"
    assert faults(library(tmp_path, {"he/ring/a.py": text, "he/bfv/b.py": ""})) == []


@pytest.mark.parametrize(("arguments", "expected"), [([], "he.ring: errors"), (["--mermaid"], "he.bfv --> he.ring")])
def test_the_rooms_are_listed_and_drawn(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["import_graph", *arguments])
    main()
    assert expected in capsys.readouterr().out
