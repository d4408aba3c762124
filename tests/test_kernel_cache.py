"""The cache of compiled kernels: an edit of a file that a kernel's file imports compiles it again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoprivacy import kernel_cache
from autoprivacy.workflow.fingerprint import SourceFiles

LIBRARY = Path(kernel_cache.__file__).parents[1]
NEEDED = ("__init__", "compiled", "errors", "storage", "kernel_cache", "workflow/__init__", "workflow/fingerprint")
KERNEL = """
from autoprivacy.kernel_cache import njit
from autoprivacy.parts import FACTOR, times


@njit(cache=True)
def kernel(x):
    return times(x) * FACTOR


if __name__ == "__main__":
    from autoprivacy.kernel import kernel

    print(kernel(10), sum(kernel.stats.cache_hits.values()))
"""
PARTS = '''
from numba import types
from numba.extending import intrinsic

FACTOR = 1  # a comment


@intrinsic
def times(typingctx, x):
    """An intrinsic, as the vectors of the ring kernels are."""

    def build(context, builder, signature, arguments):
        return builder.mul(arguments[0], arguments[0].type(3))

    return types.int64(types.int64), build
'''


@pytest.fixture
def library(tmp_path):
    """A small library with one kernel, whose intrinsic and constant another file has."""
    folder = tmp_path / "autoprivacy"
    for name in NEEDED:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(LIBRARY / "autoprivacy" / f"{name}.py", folder / f"{name}.py")
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "parts.py").write_text(PARTS)
    return folder


def run(folder):
    """What the kernel returns for 10, and how many kernels came from the cache."""
    command = [sys.executable, "-B", "-m", "autoprivacy.kernel"]
    answer = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return tuple(map(int, answer.stdout.split()))


def test_an_edited_intrinsic_or_constant_is_compiled_again(library):
    assert run(library) == (30, 0)
    assert run(library) == (30, 1)
    (library / "parts.py").write_text(PARTS.replace("type(3)", "type(4)"))
    assert run(library) == (40, 0)
    (library / "parts.py").write_text(PARTS.replace("FACTOR = 1", "FACTOR = 2"))
    assert run(library) == (60, 0)
    assert run(library) == (60, 1)


def test_an_edited_comment_is_not(library):
    assert run(library) == (30, 0)
    (library / "parts.py").write_text(PARTS.replace("a comment", "another comment"))
    assert run(library) == (30, 1)


def test_the_kernels_of_the_library_depend_on_their_intrinsics():
    files = SourceFiles(LIBRARY)
    for kernels, intrinsics in (("he/ring/words32_numba", "he/ring/simd"), ("gc/garbling_numba", "gc/half_gates_llvm")):
        folder = LIBRARY / "autoprivacy"
        assert folder / f"{intrinsics}.py" in files.imported(folder / f"{kernels}.py")


def test_every_kernel_of_the_library_is_cached_so():
    for path in LIBRARY.rglob("*.py"):
        if path.name != "kernel_cache.py":
            assert "numba import njit" not in path.read_text() and "numba.njit" not in path.read_text(), path


def test_a_read_only_installation_compiles_for_itself_and_says_so(library, tmp_path):
    home = tmp_path / "home"
    for path in (library / "__pycache__", home):
        path.write_text("a file, so that no folder can be made here, by root neither")
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    environment.pop("NUMBA_CACHE_DIR", None)  # which would be another place that can be written
    command = [sys.executable, "-B", "-m", "autoprivacy.kernel"]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.stdout.split() == ["30", "0"], answer.stderr
    assert answer.stderr.count("\n") == 1 and "set NUMBA_CACHE_DIR to a folder that can" in answer.stderr
