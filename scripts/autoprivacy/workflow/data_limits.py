"""Settings that ask for more than a data set has, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autoprivacy.data.sources import Counts
from autoprivacy.errors import UserError
from autoprivacy.workflow.config import message, search_settings
from autoprivacy.workflow.config_origin import KeyPath, Origin


def check_limits(config: Mapping[str, Any], found: Mapping[str, Counts], origin: Origin | None = None) -> None:
    """UserError for the first setting of a network of the run that is larger than its data set.

    Args:
        config: complete.
        found: what data sets hold, as far as that is known.
        origin: of the config, for messages.
    """
    for name in config["run"]["networks"]:
        counts = found.get(config["networks"][name]["dataset"])
        if counts is not None:
            for path, value, most, what in _bounds(config, name, counts):
                if value is not None and value > most:
                    allowed = f"at most {most}: the data set {config['networks'][name]['dataset']} has {most} {what}"
                    raise UserError(message(path, str(value), allowed, origin, value))


def _bounds(config: Mapping[str, Any], name: str, counts: Counts) -> Iterator[tuple[KeyPath, int | None, int, str]]:
    """Key, value, the most that the data set allows, and of what."""
    entry, own = config["networks"][name], ("networks", name)
    data = config["data"]
    train = min(counts.train, data["train_images"] or counts.train)
    test = min(counts.test, data["test_images"] or counts.test)
    yield (*own, "classes"), entry["classes"], counts.classes, "classes"
    if entry["checkpoint"] is None:
        yield (*own, "training", "batch_size"), entry["training"]["batch_size"], train, "training images"
    yield ("measure", "images"), config["measure"]["images"], test, "test images"
    if not {"autoprivacy", "tolerant"} & set(config["run"]["schemes"]):
        return
    search = search_settings(config, name)

    def place(key: str) -> KeyPath:
        return (*own, "search", key) if entry["search"].get(key) is not None else ("search", key)

    yield place("classes"), search["classes"], counts.classes, "classes"
    chosen = search["classes"] or max(2, -(-counts.classes // 10))
    usable = min(train, sum(sorted(counts.per_class)[-chosen:]))
    what = f"training images of {chosen} classes"
    images = {key: search[key] for key in ("finetune_images", "evaluation_images")}
    for key, value in images.items():
        yield place(key), value, usable, what
    if all(images.values()):
        left = usable - images["evaluation_images"]
        yield place("finetune_images"), images["finetune_images"], left, f"{what} beside those that evaluate"
