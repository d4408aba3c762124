"""What a change reruns: the exact set of rules, on a study whose results are there as far as Snakemake can tell."""

import os
import re
import time

import pytest
from support.checkout import CONFIGS, NETWORK, Checkout

REPORTING = {"tables", "figures", "claims", "report"}
AFTER_QUANTIZE = {
    "published_sets",
    "evaluate",
    "select_parameters",
    "search",
    "finetune",
    "network_accuracy",
    "accuracy",
    "measure",
} | REPORTING
SEARCHED = {"search", "finetune", "network_accuracy", "accuracy", "measure"} | REPORTING


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("planned"))
    checkout.write_example()
    checkout.pretend_finished()
    return checkout


def test_a_finished_study_has_nothing_to_do_wherever_it_lies_and_on_any_number_of_cores(planned, tmp_path):
    other = planned.copy(tmp_path / "a folder with spaces")
    code, output = other.snakemake(*CONFIGS, "--dry-run", "--cores", "1")
    assert code == 0 and "Nothing to be done" in output, output
    assert "missing metadata" not in output


@pytest.mark.parametrize(
    ("file", "old", "new", "rules"),
    [
        pytest.param("Snakefile", "\n", "\n# a comment\n", set(), id="a comment of the Snakefile"),
        pytest.param("scripts/measure.py", "\n\n\n", "\n\n# a comment\n\n", set(), id="a comment of a script"),
        pytest.param(
            "scripts/autoprivacy/storage.py", "\n\n\n", "\n\n# a comment\n\n", set(), id="a comment of the library"
        ),
        pytest.param(
            "tiny.yaml", "measure:\n  ", "measure:\n  warm_up_images: 2\n  ", {"measure"} | REPORTING, id="measuring"
        ),
        pytest.param("tiny.yaml", "episodes: 3", "episodes: 4", SEARCHED, id="the search"),
        pytest.param(
            "tiny.yaml",
            "epochs: 3",
            "epochs: 4",
            {"train", "quantize"} | AFTER_QUANTIZE,
            id="a network's training",
        ),
        pytest.param(
            "scripts/autoprivacy/report/page.py", "\n\n\n", "\n\nADDED = 1\n\n", {"report"}, id="code of the page"
        ),
        pytest.param(
            "scripts/autoprivacy/report/paper_figures.py",
            "\n\n\n",
            "\n\nADDED = 1\n\n",
            {"figures", "report"},
            id="code of figures",
        ),
        pytest.param(
            "scripts/autoprivacy/search/strategies/greedy.py",
            "\n\n\n",
            "\n\nADDED = 1\n\n",
            SEARCHED,
            id="code of the search",
        ),
        pytest.param(
            "my/small_residual.py",
            "\n\n\n",
            "\n\nADDED = 1\n\n",
            {"train", "quantize"} | AFTER_QUANTIZE,
            id="the network's code",
        ),
    ],
)
def test_a_change_reruns_what_depends_on_it(planned, file, old, new, rules):
    path = planned.folder / file
    before, status = path.read_text(), path.stat()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        assert planned.would_run() == rules
    finally:
        path.write_text(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_another_checkpoint_reruns_all_that_follows(planned):
    path = planned.folder / f"results/tiny/checkpoints/{NETWORK}.npz"
    status = path.stat()
    path.write_text("another")
    os.utime(path, (time.time() + 5,) * 2)
    try:
        assert planned.would_run() == {"quantize"} | AFTER_QUANTIZE
    finally:
        path.write_text("")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_deleted_result_is_made_again_and_no_other(planned):
    path = planned.folder / "results/tiny/tables/parameters.csv"
    status = path.stat()
    path.unlink()
    try:
        assert planned.would_run() == {"tables", "report"}
    finally:
        path.touch()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_scheme_left_out_makes_no_parameters_again(planned):
    code, output = planned.snakemake(
        *CONFIGS, "--dry-run", "--config", "run={schemes: [delphi, delphi-worst-case, darl]}"
    )
    assert code == 0, output
    rules = set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}
    assert not rules & {"train", "quantize", "profile_hardware", "select_parameters", "search", "finetune"}
    assert {"measure", "report"} <= rules


def test_every_seed_of_a_comparison_is_a_job_of_its_own(planned):
    code, output = planned.snakemake(*CONFIGS, "--dry-run", "--", "search_comparison")
    assert code == 0, output
    made = re.findall(r"^rule network_search_comparison:\n.*?output: (\S+)$", output, re.MULTILINE | re.DOTALL)
    networks = ("7cnet", "resnet32")  # search.comparison.networks of config/config.yaml
    assert sorted(made) == [
        f"results/tiny/comparison/{network}/{2020 + k}.csv" for network in networks for k in range(3)
    ]
