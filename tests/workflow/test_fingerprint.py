"""What a script imports, as the workflow sees it."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoprivacy.errors import UserError
from autoprivacy.workflow.fingerprint import SourceFiles

ROOT = Path(__file__).parents[2]


def test_imports_are_followed_through_packages(tmp_path):
    package = tmp_path / "lib" / "inner"
    package.mkdir(parents=True)
    for file in (tmp_path / "lib" / "__init__.py", package / "__init__.py"):
        file.write_text('"""A package."""\n')
    (package / "a.py").write_text("from lib.inner import b\nimport os\n")
    (package / "b.py").write_text("def f():\n    import lib.c\n")
    (tmp_path / "lib" / "c.py").write_text("")
    (tmp_path / "lib" / "unused.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text("from lib.inner.a import something\n")
    names = [str(path.relative_to(tmp_path)) for path in SourceFiles(tmp_path).imported(script)]
    assert names == ["lib/__init__.py", "lib/c.py", "lib/inner/__init__.py", "lib/inner/a.py", "lib/inner/b.py"]


def test_the_fingerprint_changes_with_meaning_alone(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    library, script = tmp_path / "lib" / "a.py", tmp_path / "script.py"
    script.write_text("import lib.a\n")

    def of(text):
        library.write_text(text)
        files = SourceFiles(tmp_path)
        return files.fingerprint([script, *files.imported(script)])

    first = of('"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    assert of("# a comment\ndef f(x):\n    return x+1\n") == first
    assert of('"""Doc."""\n\n\ndef f(x):\n    return x + 2\n') != first
    assert of('"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n') == first


def test_the_files_of_a_network_that_a_config_names(tmp_path):
    library = tmp_path / "lib"
    for file, text in (("kinds/__init__.py", ""), ("kinds/small.py", "import kinds.parts\n"), ("kinds/parts.py", "")):
        (library / file).parent.mkdir(parents=True, exist_ok=True)
        (library / file).write_text(text)
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text("import beside\nfrom kinds import parts\n")
    (own / "beside.py").write_text("")
    files = SourceFiles(library)
    kinds = [library / "kinds" / name for name in ("__init__.py", "parts.py", "small.py")]
    assert files.of_model("kinds.small:f") == kinds
    assert files.of_model(f"{own}/mine.py:f") == sorted([*kinds[:2], own / "beside.py", own / "mine.py"])


def test_a_module_of_the_python_path_and_none_at_all(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere.py").write_text("import os\n")
    files = SourceFiles(ROOT / "scripts")
    assert files.of_model("elsewhere:f") == [tmp_path / "elsewhere.py"]
    for model in ("no.module:f", f"{tmp_path}/none.py:f"):
        with pytest.raises(UserError, match="network model: .*: no (module|file)"):
            files.of_model(model)
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(UserError, match="broken.py: not valid Python .*line 1"):
        files.of_model("broken:f")


@pytest.fixture
def parsed(monkeypatch):
    """How many files were parsed, as a list that grows."""
    counted, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: counted.append(1) or parse(source))
    return counted


def two_files(folder):
    """A script and a module of long ago, and what a cache in the folder says of the two."""
    (folder / "a.py").write_text("import b\n")
    (folder / "b.py").write_text("X = 1\n")
    for name in ("a.py", "b.py"):
        os.utime(folder / name, (1, 1))

    def fingerprint():
        files = SourceFiles(folder, folder / "cache.json")
        found = files.fingerprint([folder / "a.py", *files.imported(folder / "a.py")])
        files.save()
        return found

    return fingerprint


def test_a_file_is_parsed_once_and_again_when_it_changes(tmp_path, parsed, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e10)  # so that files just written count as settled
    fingerprint = two_files(tmp_path)
    first = fingerprint()
    assert len(parsed) == 2 and fingerprint() == first and len(parsed) == 2
    (tmp_path / "b.py").write_text("X = 2\n")  # of the same size, and as old as before
    os.utime(tmp_path / "b.py", (1, 1))
    second = fingerprint()
    assert second != first and len(parsed) == 3
    (tmp_path / "b.py").write_text("X = 1\n")
    assert fingerprint() == first and fingerprint() == first and len(parsed) == 4


def test_a_file_written_this_very_moment_is_not_cached(tmp_path, parsed):
    fingerprint = two_files(tmp_path)
    fingerprint()
    fingerprint()
    assert len(parsed) == 4 and not (tmp_path / "cache.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"made_by": "another Python", "files": {"a.py": []}}'])
def test_a_damaged_cache_is_parsed_anew(tmp_path, parsed, monkeypatch, content):
    monkeypatch.setattr(time, "time", lambda: 1e10)
    fingerprint = two_files(tmp_path)
    first = fingerprint()
    (tmp_path / "cache.json").write_text(content)
    assert fingerprint() == first and len(parsed) == 4
    (tmp_path / "cache.json").unlink()
    (tmp_path / "cache.json").mkdir()  # which no file can replace
    assert fingerprint() == first and len(parsed) == 6


def test_where_the_checkout_lies_does_not_matter(tmp_path):
    places = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        places.append(two_files(tmp_path / name)())
    assert places[0] == places[1]


@pytest.mark.parametrize("program", ["client", "server"])
def test_client_and_server_need_no_torch(program):
    """Both programs start fast, and run on machines without it."""
    code = f"import sys, autoprivacy.protocol.{program}; print([m for m in ('torch', 'snakemake') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
