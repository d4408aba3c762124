"""Classify images of one's own privately: the server sees none of them, and its data set is not needed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from autoprivacy.cli.own_images import own_images
from autoprivacy.errors import UserError
from autoprivacy.protocol.client import add_server_options, expected_of, memory_of, trust_of
from autoprivacy.protocol.client_session import Client
from autoprivacy.protocol.endpoints import connect, link_of

STOPPED = "the client stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("images", nargs="+", help="image files, folders of them, or npz archives (uint8 [N, H, W, C])")
    parser.add_argument("--resize", action="store_true", help="scale images to the size that the network takes")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes shown for an image")
    add_server_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print label and scores of every image; 0 when all were answered."""
    expected, memory = expected_of(options), memory_of(options)
    channel = connect(options.connect, options.timeout, link_of(options), trust_of(options))
    try:
        client = Client(channel, *expected, memory)
        architecture = client.agreement.architecture
        for name, pixels in own_images(options.images, architecture.nodes[0].shape, options.resize):
            start = time.perf_counter()
            outputs = client.infer(client.prepare(), architecture.quantize_images(pixels[None])[0]).reshape(-1)
            record = answered(outputs, client.agreement.policy.output, architecture.class_names)
            record = {"image": name, **record, "seconds": round(time.perf_counter() - start, 3)}
            print(json.dumps(record) if options.json else in_words(record, options.top), flush=True)
        client.close()
    except BaseException as error:
        channel.fail(str(error) if isinstance(error, UserError) and not _own(error, options) else STOPPED)
        raise
    return 0


def _own(error: UserError, options: argparse.Namespace) -> bool:
    """Whether a mistake is about this side's images, which are none of the server's business."""
    return any(path in str(error) for path in options.images)


def answered(outputs: np.ndarray, output: str, names: Sequence[str]) -> dict[str, Any]:
    """Class, label and, where the policy gives any, scores, the network's integers.

    Args:
        outputs: as `Client.infer` gives them.
        output: of the policy.
        names: of the classes, none where they are not known.
    """
    number = int(outputs[0]) if output == "label" else int(outputs.argmax())
    record: dict[str, Any] = {"class": number, "label": names[number] if names else f"class {number}"}
    if output != "label":
        labels = list(names) or [f"class {index}" for index in range(len(outputs))]
        record["scores"] = dict(zip(labels, outputs.tolist(), strict=True))
    return record


def in_words(record: dict[str, Any], top: int) -> str:
    """One line for people."""
    scores = sorted(record.get("scores", {}).items(), key=lambda item: -item[1])[: max(1, top)]
    shown = ", ".join(f"{label} {score}" for label, score in scores)
    return f"{record['image']}: {record['label']}" + (f"  ({shown})" if shown else "") + f"  {record['seconds']:.2f} s"
