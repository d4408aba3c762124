"""One list of pins, CI runs the README's test command, torchvision imports; what tells others of the repository."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_every_requirement_is_pinned_exactly():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 15 and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)


def test_what_is_installed_is_what_is_pinned():
    from importlib import metadata

    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and line[0] != "#":
            name, version = line.split("==")
            assert metadata.version(name).split("+")[0] == version, name


def pins(file):
    """Version by normalised name of the lines of a list that is not hashed, or is."""
    lines = [line.split(" ")[0] for line in (ROOT / file).read_text().splitlines() if line and line[0] != "#"]
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize("lock", ["requirements-lock.txt", "requirements-lock-cuda.txt"])
def test_the_locked_list_agrees_with_the_requirements(lock):
    asked, locked = pins("requirements.txt"), pins(lock)
    assert {name: locked.get(name) for name in asked} == asked
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line[0] != "#"]
    assert len(lines) == len(locked) > 100
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+", line)] == []
    assert ("nvidia-cublas" in locked) == ("cuda" in lock)


def test_the_locked_list_holds_all_that_its_packages_need():
    from importlib import metadata

    locked = pins("requirements-lock.txt")
    for name in locked:
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                version = locked.get(re.sub("[-_.]+", "-", need.name).lower())
                assert version is not None and need.specifier.contains(version, prereleases=True), (
                    f"{name} needs {line}"
                )


def test_installing_checks_hashes():
    installing = [(ROOT / "Makefile").read_text(), (ROOT / "Containerfile").read_text()]
    assert all("--require-hashes -r " in text for text in installing)
    assert "LOCK ?= requirements-lock.txt" in installing[0]


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_torchvision_imports_beside_this_build_of_torch():
    code = (
        "from autoprivacy.data.torchvision_operators import declare_missing_operators as d; d(); d(); "
        "import torchvision; print(torchvision.__version__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_how_to_cite_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors", "license"} <= citation.keys()
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Lou", "Bian", "Jiang"] and paper["year"] == 2020
    assert "MIT License" in (ROOT / "LICENSE").read_text() and citation["license"] == "MIT"


def test_the_table_of_configs_is_complete():
    text = (ROOT / "config" / "README.md").read_text()
    assert [file.name for file in (ROOT / "config").glob("*.yaml") if f"`{file.name}`" not in text] == []


def test_every_file_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:scripts|tests|rules|config|docs)/[\w/.]+)`", text))
    assert len(named) > 10 and [name for name in sorted(named) if not (ROOT / name).exists()] == []
