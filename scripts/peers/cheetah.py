"""One private inference by SPU's Cheetah, both parties on this machine, in the environment of requirements-peers.txt.

Reads a network that `scripts/compare_peers.py` exported, prints one line of JSON: seconds of the set-up, seconds of the
inference, the outputs. Weights and image are secret-shared beforehand, which is in no time.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from spu import api, libspu
from spu.utils import frontend

RECEIVE_MILLISECONDS = 600_000


def evaluate(nodes: list[dict[str, Any]], image: Any, weights: dict[str, Any]) -> Any:
    """The float network: image [1, C, H, W], weights and biases by `<layer>.weight` and `<layer>.bias`."""
    values: dict[str, Any] = {}
    for node in nodes:
        x = values[node["inputs"][0]] if node["inputs"] else image
        operation = node["operation"]
        if operation == "linear":
            padding = [(node["padding"], node["padding"])] * 2
            strides = (node["stride"],) * 2
            convolved = jax.lax.conv_general_dilated(
                x, weights[f"{node['name']}.weight"], strides, padding, feature_group_count=node["groups"]
            )
            x = convolved + weights[f"{node['name']}.bias"].reshape(1, -1, 1, 1)
        elif operation == "relu":
            x = jnp.maximum(x, 0)
        elif operation == "average_pool":
            rows, columns = node["window"]
            down, right = node["strides"]
            batch, channels, height, width = x.shape
            if (rows, columns) != (down, right):
                raise ValueError(f"{node['name']}: pooling windows that overlap")
            x = x.reshape(batch, channels, height // rows, rows, width // columns, columns).mean((3, 5))
        elif operation == "flatten":
            x = x.reshape(1, -1, 1, 1)
        elif operation == "add":
            x = x + values[node["inputs"][1]]
        elif operation == "subsample":
            down, right = node["strides"]
            x = x[:, :, ::down, ::right]
        elif operation == "pad_channels":
            x = jnp.pad(x, ((0, 0), (node["before"], node["after"]), (0, 0), (0, 0)))
        elif operation not in ("input", "requantize"):
            raise ValueError(f"{node['name']}: no operation {operation}")
        values[node["name"]] = x
    return values[nodes[-1]["name"]].reshape(-1)


def party(rank: int, listen: list[str], peers: list[str], executable: bytes, shares: list[Any], pipe: Any) -> None:
    """One party: link, runtime, inference. Each reaches the other at `peers` and listens at `listen`."""
    started = time.monotonic()
    description = libspu.link.Desc()
    description.recv_timeout_ms = RECEIVE_MILLISECONDS
    for other in range(2):
        description.add_party(f"party{other}", listen[other] if other == rank else peers[other])
    link = libspu.link.create_brpc(description, rank)
    runtime = api.Runtime(link, configuration())
    compiled = libspu.Executable()
    compiled.ParseFromString(executable)
    for name, share in zip(compiled.input_names, shares, strict=True):
        runtime.set_var(name, share)
    ready = time.monotonic()
    runtime.run(compiled)
    pipe.send((ready - started, time.monotonic() - ready, [runtime.get_var(name) for name in compiled.output_names]))
    link.stop_link()


def configuration() -> Any:
    """Cheetah over 64-bit rings with SPU's default of 18 fractional bits."""
    return libspu.RuntimeConfig(protocol=libspu.ProtocolKind.CHEETAH, field=libspu.FieldType.FM64)


def main() -> None:
    """Parse, share, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, required=True, help="npz with weights and the image; .json beside it")
    parser.add_argument("--listen", nargs=2, required=True, help="addresses at which the parties listen")
    parser.add_argument("--peers", nargs=2, required=True, help="addresses at which each is reached")
    arguments = parser.parse_args()
    with np.load(arguments.network) as arrays:
        image = arrays["image"].astype(np.float32)
        weights = {name: arrays[name].astype(np.float32) for name in arrays.files if name != "image"}
    nodes = json.loads(arguments.network.with_suffix(".json").read_text())

    def network(image: Any, weights: dict[str, Any]) -> Any:
        return evaluate(nodes, image, weights)

    flat, _ = jax.tree_util.tree_flatten((image, weights))
    names = [f"in{number}" for number in range(len(flat))]
    executable, _ = frontend.compile(
        frontend.Kind.JAX,
        network,
        (image, weights),
        {},
        names,
        [libspu.Visibility.VIS_SECRET] * len(flat),
        lambda outputs: [f"out{number}" for number in range(len(outputs))],
    )
    io = api.Io(2, configuration())
    shares = [io.make_shares(np.asarray(value), libspu.Visibility.VIS_SECRET) for value in flat]
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(
            target=party,
            args=(
                rank,
                arguments.listen,
                arguments.peers,
                executable.SerializeToString(),
                [share[rank] for share in shares],
                ends[rank][1],
            ),
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    answers = [end.recv() for end, _ in ends]
    for process in processes:
        process.join()
    outputs = io.reconstruct([answer[2][0] for answer in answers])
    result = {
        "setup_seconds": max(answer[0] for answer in answers),
        "seconds": max(answer[1] for answer in answers),
        "outputs": np.asarray(outputs).reshape(-1).tolist(),
        "reference": np.asarray(network(image, weights)).reshape(-1).tolist(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
