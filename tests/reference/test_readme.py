"""README.md's tables are those of the reference results, number by number."""

import re
import shutil

import pytest

from autoprivacy.errors import UserError
from autoprivacy.reference.readme import REFERENCE, ROOT, TABLES, with_tables

PAGE = (ROOT / "README.md").read_text()


def test_the_readme_has_every_table_as_the_reference_results_have_it():
    assert set(re.findall(r"<!-- table: (\S+) -->", PAGE)) == set(TABLES)
    assert with_tables(PAGE, REFERENCE) == PAGE


def test_another_result_makes_another_page(tmp_path):
    """The comparison above can fail."""
    shutil.copytree(REFERENCE, tmp_path / "reference")
    path = tmp_path / "reference" / TABLES["peers"][0]
    text = path.read_text()
    number = re.search(r"\d+\.\d{6,}", text)[0]
    path.write_text(text.replace(number, str(float(number) * 2), 1))
    assert with_tables(PAGE, tmp_path / "reference") != PAGE


def test_an_unknown_table_is_refused():
    with pytest.raises(UserError, match="table speed: allowed quick"):
        with_tables("<!-- table: speed -->\n<!-- end -->", REFERENCE)
