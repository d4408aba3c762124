"""Which code hashes and garbles."""

from __future__ import annotations

import pytest

from autoprivacy.backend import BACKEND_VARIABLE, default_backend
from autoprivacy.errors import UserError


def test_backend_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "numpy")
    assert default_backend() == "numpy"
    monkeypatch.delenv(BACKEND_VARIABLE)
    assert default_backend() == "numba"
    monkeypatch.setenv(BACKEND_VARIABLE, "fortran")
    with pytest.raises(UserError, match="expected one of numba, numpy"):
        default_backend()
