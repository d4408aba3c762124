"""Weights as people save them, read without running anything in the file and brought to a network's own names.

A state_dict may stand alone or under a key beside other things, its names may have the prefixes of DataParallel and
torch.compile, and it may have counters that the network lacks, or lack those that the network has.
"""

from __future__ import annotations

import argparse
import collections
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

from autoprivacy.errors import UserError
from autoprivacy.storage import read_arrays

# Under which keys training scripts put the weights, the likeliest first.
KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "ema",
)
WRAPPERS = frozenset(("module", "_orig_mod"))  # path components of DataParallel, and of torch.compile
COUNTER = "num_batches_tracked"  # of batch normalisation: no weight, and missing before torch 0.4.1
HOW = "write it with torch.save(model.state_dict(), ...)"
# Beside tensors, what training scripts put into the same file: settings and numbers, which run nothing when read.
_HARMLESS = (
    *(getattr(multiarray, name) for name in ("scalar", "_reconstruct")),
    argparse.Namespace,
    collections.OrderedDict,
    collections.defaultdict,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")),
)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by name, and the header of an npz of this project, {} without one.

    Args:
        path: an npz, safetensors or ONNX file by its suffix; with any other suffix what torch.save wrote.

    Raises:
        UserError: it is missing, damaged, holds other objects than tensors, or none.
    """
    suffix = Path(path).suffix
    if suffix == ".npz":
        arrays, header = read_arrays(path)
        return {name: torch.as_tensor(array) for name, array in arrays.items()}, header or {}
    if suffix == ".safetensors":
        return _safetensors(path), {}
    if suffix == ".onnx":
        from autoprivacy.networks.onnx_network import read_onnx

        return dict(read_onnx(path).state_dict()), {}
    return _tensors(_saved(path), path), {}


def _safetensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); fetch or make it again") from None


def _saved(path: str | Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # pickle, zipfile and torch each raise their own kinds
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if found:
            reason = f"it holds a Python object, {found[1]}, which is not read as it could run anything"
        else:
            reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path}: not a state_dict of tensors ({reason}); {HOW}") from None


def _tensors(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The state_dict in what torch.save wrote."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: {type(content).__name__}; expected a state_dict of tensors: {HOW}")
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if found and len(found) == len(content):
        return found
    inside = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    chosen = next((key for key in KEYS if key in inside), inside[0] if len(inside) == 1 else None)
    if chosen is not None:
        logging.info("%s: the weights under the key %s are taken", path, chosen)
        return _tensors(content[chosen], path)
    if found and not inside:
        return found
    listed = ", ".join(map(str, list(content)[:5])) or "nothing"
    raise UserError(f"{path}: a dict of {listed}; expected a state_dict of tensors, alone or under state_dict: {HOW}")


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(part, Tensor) or (isinstance(part, Mapping) and _has_tensors(part)) for part in value.values()
    )


def fitted(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of a network's `state_dict`, as far as prefixes and counters are what differs.

    Prefixes of wrappers are cut off, and one that all names have in common where the network has none; batch
    normalisation's counters and others of one number that the network lacks are left out, those that it has and the
    weights lack are 0. Whatever else differs stays as it is, for the caller to refuse.
    """
    renamed = _without_wrappers(weights, state)
    if not renamed.keys() & state.keys():
        renamed = _without_common_prefix(renamed, state)
    kept = {
        name: value
        for name, value in renamed.items()
        if name in state or not (value.numel() == 1 or name.endswith(COUNTER))
    }
    if left_out := sorted(renamed.keys() - kept.keys()):
        logging.info("left out, as the network has no such entries: %s", _listed(left_out))
    counters = {name: torch.zeros_like(value) for name, value in state.items() if name.endswith(COUNTER)}
    return {**counters, **kept}


def _without_wrappers(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {part for name in state for part in name.split(".")}
    cut = WRAPPERS - own
    return {
        ".".join(part for part in name.split(".") if part not in cut) if name not in state else name: value
        for name, value in weights.items()
    }


def _without_common_prefix(weights: dict[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the parts of a training module (model., net., loss.) the one that has all of the network's weights."""
    wanted = {name for name in state if not name.endswith(COUNTER)}
    for prefix in dict.fromkeys(name.split(".")[0] + "." for name in weights):
        inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if wanted <= inner.keys():
            return inner
    return weights


def check_weights(path: str | Path, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """UserError, naming the first entry, unless all shapes are those of a network's state and all numbers finite."""
    expected, got = ({name: tuple(value.shape) for name, value in part.items()} for part in (state, weights))
    names = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if names:
        first = names[0]
        raise UserError(
            f"{path}: weights of another network or class count: {first} is {got.get(first, 'missing')}, expected "
            f"{expected.get(first, 'no such entry')} (and {len(names) - 1} more of {len(expected.keys() | got.keys())} "
            f"differ)"
        )
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            wrong = int((~value.isfinite()).sum())
            raise UserError(
                f"{path}: {name}: {wrong} of {value.numel()} values are NaN or infinite; train the network again with "
                f"a smaller learning rate, or fetch the file again"
            )


def _listed(names: Iterable[str], most: int = 5) -> str:
    first = list(names)
    return ", ".join(first[:most]) + (f" and {len(first) - most} more" if len(first) > most else "")
