"""A copy of what the workflow needs, with the example of docs/own-network.md and a study of seconds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "scripts", "config", "profiles", "data", "models")
CONFIG = "tiny.yaml"
CONFIGS = ("--configfile", "my/study.yaml", CONFIG)  # the example's, and budgets of seconds laid over it
NETWORK = "small-residual"


class Checkout:
    """A copy of what the workflow needs, in which it may write."""

    def __init__(self, folder):
        self.folder = folder
        for part in PARTS:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("downloads"))
            else:
                shutil.copy2(source, target)
        shutil.copy(ROOT / "tests" / "workflow" / CONFIG, folder / CONFIG)

    def write_example(self):
        """The files that docs/own-network.md shows, each under the name that stands before it; its data is made."""
        text = (ROOT / "docs" / "own-network.md").read_text()
        files = dict(re.findall(r"^`(my/[\w.]+)`:\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        assert sorted(files) == ["my/animals.py", "my/small_residual.py", "my/study.yaml"]
        (self.folder / "my").mkdir()
        for name, content in files.items():
            (self.folder / name).write_text(content)
        environment = {**os.environ, "PYTHONPATH": "scripts"}
        subprocess.run([sys.executable, "my/animals.py"], cwd=self.folder, env=environment, check=True)

    @staticmethod
    def command(*arguments):
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    @staticmethod
    def environment():
        return {name: value for name, value in os.environ.items() if name != "AUTOPRIVACY_DATA"}

    def snakemake(self, *arguments):
        command, environment = self.command(*arguments), self.environment()
        run = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        return run.returncode, run.stdout + run.stderr

    def would_run(self):
        """The rules that a run would execute now."""
        code, output = self.snakemake(*CONFIGS, "--dry-run")
        assert code == 0, output
        return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}

    def copy(self, folder):
        """The same elsewhere, results and what Snakemake knows of them included."""
        other = object.__new__(Checkout)
        other.folder = folder
        shutil.copytree(self.folder, folder)
        return other

    def pretend_finished(self):
        """Every result of the study as an empty file that Snakemake takes to be made by the present code."""
        code, output = self.snakemake(*CONFIGS, "--summary")
        assert code == 0, output
        for line in output.splitlines():
            if line.startswith("results/"):
                path = self.folder / line.split("\t")[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        code, output = self.snakemake(*CONFIGS, "--touch", "--forceall")
        assert code == 0, output

    def edit(self, file, old, new):
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
