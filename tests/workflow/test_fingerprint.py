"""What a script imports, as the workflow sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from autoprivacy.errors import UserError
from autoprivacy.workflow.fingerprint import fingerprint, model_sources, sources

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
    names = [str(Path(p).relative_to(tmp_path)) for p in sources(str(script), str(tmp_path))]
    assert names == ["lib/__init__.py", "lib/c.py", "lib/inner/__init__.py", "lib/inner/a.py", "lib/inner/b.py"]


def test_the_fingerprint_changes_with_meaning_alone(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    library, script = tmp_path / "lib" / "a.py", tmp_path / "script.py"
    script.write_text("import lib.a\n")

    def of(text):
        library.write_text(text)
        return fingerprint([str(script), *sources(str(script), str(tmp_path))])

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
    kinds = [str(library / "kinds" / name) for name in ("__init__.py", "parts.py", "small.py")]
    assert model_sources("kinds.small:f", str(library)) == kinds
    expected = [*kinds[:2], str(own / "beside.py"), str(own / "mine.py")]
    assert model_sources(f"{own}/mine.py:f", str(library)) == sorted(expected)


def test_a_module_of_the_python_path_and_none_at_all(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere.py").write_text("import os\n")
    assert model_sources("elsewhere:f", "scripts") == [str(tmp_path / "elsewhere.py")]
    for model in ("no.module:f", f"{tmp_path}/none.py:f"):
        with pytest.raises(UserError, match="network model: .*: no (module|file)"):
            model_sources(model, "scripts")


@pytest.mark.parametrize("program", ["client", "server"])
def test_client_and_server_need_no_torch(program):
    """Both programs start fast, and run on machines without it."""
    code = f"import sys, autoprivacy.protocol.{program}; print([m for m in ('torch', 'snakemake') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
