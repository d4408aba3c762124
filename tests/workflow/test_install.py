"""One list of pins: conda users get the same, CI runs the README's test command, torchvision imports."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_requirement_is_pinned_exactly():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 15 and all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)


def test_conda_users_get_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "python=3.11" in packages and pip == ["-r requirements.txt"]


def test_what_is_installed_is_what_is_pinned():
    from importlib import metadata

    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and line[0] != "#":
            name, version = line.split("==")
            assert metadata.version(name).split("+")[0] == version, name


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
