"""The client program: private inference for the images of a data set.

    python -m autoprivacy.protocol.client --connect host:port --dataset prepared.npz

reads the numbers of test images on standard input, one a line, and answers each with one line of JSON. With `--pool N`
it prepares N bundles ahead and fills them up again while no image waits; an image then takes the online phase alone.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from autoprivacy.data.dataset import load_test
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.policy import Policy
from autoprivacy.programs import run_program
from autoprivacy.protocol.client_memory import ClientMemory
from autoprivacy.protocol.client_session import DEFAULT_MEMORY, Client
from autoprivacy.protocol.endpoints import ServiceSettings, add_bundle_options, add_link_options, connect, link_of
from autoprivacy.protocol.kept_bundles import CLIENT, BundleFolder, binding
from autoprivacy.protocol.messages import ProtocolError
from autoprivacy.protocol.sealed_files import Seal, SealedFolder
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.tls import ServerTrust
from autoprivacy.quantization.integer_network import Architecture

STOPPED = "the client stopped"  # what the server is told of all that is no fault of the protocol


class _Answering:
    """Answers image numbers, from bundles prepared ahead as far as there are any."""

    def __init__(self, client: Client, images: np.ndarray, pool: int) -> None:
        self._client, self._images, self._capacity = client, images, pool
        self._told = 0  # phases

    def fill(self) -> bool:
        """Prepare one bundle more; False where the pool is full."""
        if self._client.prepared >= self._capacity:
            return False
        self._client.prepare()
        return True

    def tell(self, **more: Any) -> None:
        """Print a line of JSON: `more`, and what the ledger has had since the last line."""
        report = self._client.ledger.report(self._told)
        self._told += len(report["phases"])
        print(json.dumps({**more, **report}), flush=True)

    def answer(self, line: str) -> None:
        """One private inference; UserError for a line that is no image's number."""
        text = line.strip()
        if not (text.isascii() and text.isdecimal()) or int(text) >= len(self._images):
            raise UserError(f"image {text!r}: expected a number from 0 to {len(self._images) - 1}")
        start = time.perf_counter()
        ready = self._client.ready()
        bundle = ready or self._client.prepare()
        image = self._client.agreement.architecture.quantize_images(self._images[int(line)][None])[0]
        outputs = self._client.infer(bundle, image).tolist()
        seconds = time.perf_counter() - start
        self.tell(image=int(line), outputs=outputs, prepared_ahead=ready is not None, seconds=seconds)
        self._client.ready()  # the next one is at hand when its image comes


def _lines(stream: IO[str]) -> queue.SimpleQueue[str | None]:
    """The lines of a stream as they come, then None."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _resume(client: Client, options: argparse.Namespace) -> None:
    """Go on with the bundles on disk, where the options name a folder."""
    if options.bundles is not None:
        seal = Seal(CLIENT, binding(client.agreement))
        folder = SealedFolder(options.bundles, options.bundles_key)
        client.resume(BundleFolder(folder, seal, options.bundles_limit))
        client.ready()


def _answer_all(client: Client, images: np.ndarray, pool: int) -> None:
    """Fill the pool, then answer every line of standard input; while none waits, fill it up again.

    Raises:
        UserError: the images are not of the network's shape, or a line is no image's number.
    """
    channels, height, width = client.agreement.architecture.nodes[0].shape
    if images.shape[1:] != (height, width, channels):
        raise UserError(
            f"the data set's images have height, width, channels {images.shape[1:]}; the server's network takes "
            f"{(height, width, channels)}: give --dataset the one that it was made for"
        )
    answering = _Answering(client, images, pool)
    while answering.fill():
        pass
    answering.tell()
    lines = _lines(sys.stdin)
    while True:
        if lines.empty() and answering.fill():
            continue
        line = lines.get()
        if line is None:
            break
        answering.answer(line)
    client.close()
    answering.tell()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Private inference: the client.")
    parser.add_argument("--dataset", required=True, help="prepared data set; images are numbered in its test split")
    parser.add_argument("--pool", type=int, default=0, help="bundles to prepare ahead and to keep ready")
    add_server_options(parser)
    add_bundle_options(parser)
    return parser


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options of every client that say which server is meant and what is expected of it."""
    parser.add_argument("--connect", required=True, metavar="HOST:PORT", help="the server's address")
    parser.add_argument("--policy", help="policy file that the server's must equal")
    parser.add_argument("--announcement", help="file of `server --announce`: policy and architecture that must be told")
    parser.add_argument(
        "--timeout", type=float, default=ServiceSettings.timeout, help="seconds of silence that end the session"
    )
    parser.add_argument(
        "--image-memory", type=int, default=DEFAULT_MEMORY.image, metavar="BYTES", help="that one image may take"
    )
    parser.add_argument("--memory", type=int, default=DEFAULT_MEMORY.total, metavar="BYTES", help="that all may take")
    parser.add_argument("--tls-ca", metavar="FILE", help="authorities that the server's certificate must be from")
    parser.add_argument("--tls-fingerprint", metavar="SHA256", help="what the server's certificate must have")
    parser.add_argument("--tls-cert", metavar="FILE", help="the client's certificate, where the server asks for one")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key")
    add_link_options(parser)


def trust_of(options: argparse.Namespace) -> ServerTrust | None:
    """What the options ask of the server's certificate."""
    given = options.tls_ca, options.tls_fingerprint, options.tls_cert, options.tls_key
    return ServerTrust.load(*given) if any(part is not None for part in given) else None


def memory_of(options: argparse.Namespace) -> ClientMemory:
    """What the options allow a session."""
    return ClientMemory(options.image_memory, options.memory)


def expected_of(options: argparse.Namespace) -> tuple[Policy | None, Architecture | None]:
    """The policy and the architecture that the options expect of the server."""
    if options.announcement is None:
        return (Policy.load(options.policy) if options.policy else None), None
    try:
        announced = Agreement.from_bytes(Path(options.announcement).read_bytes())
    except OSError as error:
        raise UserError(f"{options.announcement}: cannot be read ({error.strerror})") from None
    except ProtocolError:
        raise UserError(
            f"{options.announcement}: not an announcement; make it with the server's --announce option"
        ) from None
    return (Policy.load(options.policy) if options.policy else announced.policy), announced.architecture


def main(arguments: list[str] | None = None) -> int:
    """Run the client program; 0 when every image was answered."""
    options = _parser().parse_args(arguments)
    return run_program("client", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    channel = None
    try:
        if options.pool < 0:
            raise UserError(f"--pool {options.pool}: expected 0 or more bundles")
        memory = memory_of(options)
        images = load_test(options.dataset).images
        expected = expected_of(options)
        channel = connect(options.connect, options.timeout, link_of(options), trust_of(options))
        client = Client(channel, *expected, memory)
        if options.bundles is None:
            memory.check_pool(options.pool, client.lengths)
        _resume(client, options)
        _answer_all(client, images, options.pool)
    except (UserError, OSError, KeyboardInterrupt) as error:
        if channel is not None:
            # Words about this side's input are none of the server's business.
            channel.fail(str(error) if isinstance(error, ProtocolError) else STOPPED)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
