"""Lets torchvision be imported beside a CPU build of torch.

The registry's torchvision is compiled for the CUDA build; beside a CPU torch its operators cannot load and the import
fails on `torchvision::nms`. Declaring the two schemas is enough for data sets, transforms and models; none of the
operators is used here. Where the operators are there, nothing is done.
"""

from __future__ import annotations

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> None:
    """Declare torchvision's operator schemas when the compiled ones are missing; safe to call again."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS.values():
            library.define(schema)
        _KEEP.append(library)


_KEEP: list[torch.library.Library] = []  # a Library takes its definitions back when it is collected
