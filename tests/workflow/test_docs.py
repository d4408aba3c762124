"""The documentation: every link leads somewhere, what is generated is current, commands that are named exist."""

import re
from pathlib import Path

import pytest
import yaml

from autoprivacy.cli.main import COMMANDS
from autoprivacy.workflow.config_reference import PAGE, reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("*/README.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    """As code hosting sites make them of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    dead = []
    for link in (first or second for first, second in LINK.findall(text)):
        if re.match(r"https?://|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_config_reference_is_that_of_the_schema():
    assert PAGE.read_text() == reference(), "run python -m autoprivacy.workflow.config_reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_named_exist(page):
    text = page.read_text()
    assert set(re.findall(r"(?:python -m|bin/)autoprivacy ([a-z]+)", text)) <= set(COMMANDS)
    for module in re.findall(r"python -m (autoprivacy\.[a-z_.]+)", text):
        assert (ROOT / "scripts" / (module.replace(".", "/") + ".py")).exists(), module
    for config in re.findall(r"--configfile (config/[\w.-]+)", text):
        assert (ROOT / config).exists(), config


def test_the_containers_recipe_copies_and_runs_what_is_there():
    lines = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    allowed = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert instructions[0][0] == "FROM" and {name for name, _ in instructions} <= allowed
    for name, words in instructions:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in words.split()[:-1])
    assert 'ENTRYPOINT ["bin/autoprivacy"]' in lines and (ROOT / "bin" / "autoprivacy").stat().st_mode & 0o111


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_targets_that_are_named_exist(page):
    text = page.read_text()
    named = re.findall(r"`((?:scripts|tests|rules|config|docs|models|profiles|install|bin)/[\w./*-]+)[`:]", text)
    assert [name for name in sorted(set(named)) if not list(ROOT.glob(name))] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    assert set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, flags=re.M)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    rules = {
        name
        for file in (ROOT / "rules").glob("*.smk")
        for name in re.findall(r"^rule (\w+):", file.read_text(), flags=re.M)
    }
    asked = re.findall(r"snakemake[^\n`]* (\w+_\w+)(?:`|$| )", text, flags=re.M)
    assert [name for name in asked if name not in rules] == []


def test_the_artifact_appendix_has_an_experiment_for_every_claim():
    claims = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["claims"]
    named = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs" / "artifact.md").read_text()))
    assert sorted(set(claims) - named) == []
