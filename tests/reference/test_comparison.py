"""A study beside the reference: what differs is reported, by the tolerance of its kind; a kept run is complete."""

import shutil

import pytest

from autoprivacy.errors import UserError
from autoprivacy.reference import compare as program
from autoprivacy.reference import keep as keeping
from autoprivacy.reference.comparison import COMPARED, PARAMETERS, compare, machine_factor, verdicts
from autoprivacy.storage import read_rows, write_rows

REFERENCE = program.REFERENCE / "quick"


@pytest.fixture
def own(tmp_path):
    return shutil.copytree(REFERENCE, tmp_path / "quick")


def altered(path, change, only=lambda row: True):
    """The table with `change` applied to the first row that `only` takes."""
    rows = read_rows(path)
    change(next(row for row in rows if only(row)))
    write_rows(path, rows)


def outside(own):
    return {check.what: check.outside for check in compare(own, REFERENCE) if check.outside}


def test_a_run_agrees_with_itself(own, capsys):
    assert outside(own) == {}
    assert all(check.compared and not check.only_here and not check.only_there for check in compare(own, REFERENCE))
    assert all(claim.same for claim in verdicts(own, REFERENCE))
    assert program.main([str(own), "--strict"]) == 0
    assert f"{len(read_rows(REFERENCE / 'claims.csv'))} of" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "approximate", "column", "value", "what"),
    [
        (PARAMETERS, "False", "primes", "9", "parameters by rules"),
        (PARAMETERS, "True", "plaintext_modulus", "17", "parameters by searches"),
        (PARAMETERS, "False", "security_bits", "127.9", "security of layers"),
        ("published-sets.csv", None, "security_bits", "12", "published sets"),
        ("accuracy.csv", None, "accuracy_percent", "50", "accuracies"),
    ],
)
def test_a_result_outside_its_tolerance_is_named(own, file, approximate, column, value, what):
    altered(own / file, lambda row: row.update({column: value}), lambda row: row.get("approximate") == approximate)
    (found,) = outside(own).items()
    assert found[0] == what and len(found[1]) == 1 and value in found[1][0]


def test_security_changes_with_the_set_without_complaint(own):
    altered(own / PARAMETERS, lambda row: row.update(security_bits="140.0", log2_q="190.0"))
    assert "security of layers" not in outside(own)
    altered(own / PARAMETERS, lambda row: row.update(log2_q=read_rows(REFERENCE / PARAMETERS)[0]["log2_q"]))
    assert "security of layers" in outside(own)


@pytest.mark.parametrize(
    ("column", "what"), [("m_total_bytes", "bytes an image"), ("t_total_seconds", "seconds an image")]
)
@pytest.mark.parametrize(("factor", "reported"), [(1.01, False), (1.8, True), (0.5, True)])
def test_bytes_and_seconds_have_tolerances(own, column, what, factor, reported):
    altered(own / "tables/table2.csv", lambda row: row.update({column: str(float(row[column]) * factor)}))
    assert (what in outside(own)) is reported


def test_another_machine_is_one_factor(own):
    path = own / "tables/table2.csv"
    rows = read_rows(path)
    write_rows(path, [{**row, "t_total_seconds": str(float(row["t_total_seconds"]) * 7)} for row in rows])
    assert outside(own) == {}
    assert machine_factor(read_rows(path), read_rows(REFERENCE / "tables/table2.csv")) == pytest.approx(7)


def test_another_verdict_is_told_and_fails_a_strict_comparison(own, capsys):
    altered(own / "claims.csv", lambda row: row.update(verdict="not tested"))
    assert program.main([str(own)]) == 0
    assert program.main([str(own), "--strict"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("DIFFERS") for line in lines) == 2  # one a call
    assert "30 of 31" in lines[-1]


def test_what_is_missing_is_named(own, tmp_path):
    (own / "claims.csv").unlink()
    with pytest.raises(UserError, match=r"no claims.csv; make it: snakemake -j8 --configfile config/quick.yaml"):
        program.main([str(own)])
    with pytest.raises(UserError, match=r"there are references of .*quick"):
        program.main([str(REFERENCE), "--reference", str(tmp_path / "nowhere")])


def test_rows_that_one_side_lacks_are_counted(own):
    rows = read_rows(own / PARAMETERS)
    write_rows(own / PARAMETERS, [row for row in rows if row["scheme"] != "darl"])
    check = compare(own, REFERENCE)[0]
    assert not check.agrees and program.main([str(own), "--strict"]) == 1
    assert check.only_there == sum(row["scheme"] == "darl" for row in rows) and "only in the reference" in check.line


def test_a_table_of_another_version_is_refused(own):
    rows = read_rows(own / "accuracy.csv")
    write_rows(own / "accuracy.csv", [{"net": row["network"]} for row in rows])
    with pytest.raises(UserError, match="without the column"):
        compare(own, REFERENCE)


def test_damaged_numbers_and_profiles_are_one_line(own):
    altered(own / "accuracy.csv", lambda row: row.update(interval_percent="much"))
    with pytest.raises(UserError, match="accuracies: a table is damaged"):
        compare(own, REFERENCE)
    (own / "profile.json").write_text('{"provenance": {"cpu": "x"}}')
    with pytest.raises(UserError, match=r"profile.json: commit, cpu or date"):
        program.main([str(own)])


def test_what_is_kept_of_a_run_can_be_compared(own, tmp_path):
    (own / "networks").mkdir()
    (own / "networks" / "7cnet.npz").write_bytes(b"weights")
    size = keeping.keep(own, tmp_path / "kept")
    kept = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*")}
    assert set(COMPARED) <= kept and not any("networks/" in name for name in kept)
    assert size == sum((tmp_path / "kept" / name).stat().st_size for name in kept)
    assert compare(tmp_path / "kept", REFERENCE) == compare(own, REFERENCE)


def test_what_is_incomplete_or_large_is_not_kept(own, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "MAXIMUM_BYTES", 1000)
    with pytest.raises(UserError, match="allowed"):
        keeping.keep(own, tmp_path / "kept")
    (own / "accuracy.csv").unlink()
    with pytest.raises(UserError, match=r"no accuracy.csv; run the study to its end"):
        keeping.keep(own, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
