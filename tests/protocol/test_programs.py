"""The two programs as a person meets them: every mistake is told in one line on standard error, with exit status 1."""

import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.protocol_sessions import FLOODED, NETWORK, P_POWER, POLICY, ROOT
from support.services import MODEL, service

from autoprivacy.data.dataset import Dataset, Split, save
from autoprivacy.programs import INTERRUPTED
from autoprivacy.protocol.client import main as client_main
from autoprivacy.protocol.server import main as server_main
from autoprivacy.quantization.integer_network import IntegerNetwork
from autoprivacy.selection.schemes import darl

ENVIRONMENT = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": "/usr/bin:/bin"}


def save_images(path, size):
    pixels = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(3))
    save(Dataset("made-up", split, split, (0.5,) * 3, (0.25,) * 3, "a test"), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of all kinds, right and wrong."""
    folder = tmp_path_factory.mktemp("files")
    NETWORK.save(folder / "network.npz")
    POLICY.save(folder / "policy.json")
    darl(NETWORK, "residual", P_POWER, FLOODED).save(folder / "other.json")
    replace(POLICY, layers=POLICY.layers[:2]).save(folder / "short.json")
    (folder / "list.json").write_text("[1]")
    (folder / "junk").write_bytes(b"\x89PNG, an image")
    save_images(folder / "data.npz", 8)
    save_images(folder / "large.npz", 32)
    architecture = replace(NETWORK.architecture, image_scale=0.03)
    IntegerNetwork(architecture, NETWORK.layers, NETWORK.output_scale).save(folder / "network2.npz")
    files = ["--network", str(folder / "network2.npz"), "--policy", str(folder / "policy.json")]
    assert server_main([*files, "--announce", str(folder / "announced.json")]) == 0
    return folder


@pytest.fixture(scope="module")
def address():
    """A server's, which stays and has to survive all clients."""
    with service(pool=8 * 16 * MODEL.agreement.lengths.server_bundle_bytes) as address:
        yield address


def told(capsys):
    """The one line on standard error."""
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    return line


def run_client(folder, address, monkeypatch, lines="0\n", **options):
    given = {"connect": address, "dataset": "data.npz"} | options
    for name in {"dataset", "policy", "announcement"} & set(given):
        given[name] = str(folder / given[name])
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return client_main([f"--{name}={value}" for name, value in given.items()])


NO_IMAGE = "expected a number from 0 to 2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"connect": "127.0.0.1:1"}, r"127\.0\.0\.1:1: no server answers \(.*refused\); start it first"),
        ({"connect": "127.0.0.1:port"}, 'address "127.0.0.1:port": expected host:port with a port up to 65535'),
        ({"connect": "127.0.0.1"}, 'address "127.0.0.1": expected host:port'),
        ({"timeout": "0"}, "time-out 0 s; expected seconds above 0"),
        ({"pool": "-1"}, "--pool -1: expected 0 or more bundles"),
        (
            {"image-memory": "99"},
            "a prepared image of the server's network takes .* bytes of memory, allowed 99; allow",
        ),
        ({"memory": "99"}, "memory: 2147483648 bytes an image, 99 in all; expected at least 1 byte an image"),
        ({"pool": "99999"}, "--pool 99999: 4294967296 bytes of memory have room for .*; expected at most"),
        ({"pool": "17"}, "the peer ended the session: the pool holds 16 bundles already; use one before"),
        ({"round-trip-seconds": "1"}, "--round-trip-seconds without --bits-per-second; give both"),
        ({"policy": "other.json"}, "the server's policy is not the expected one: .*: 1048576 expected, 1032193 told"),
        ({"policy": "list.json"}, "list.json: not a policy: "),
        ({"policy": "junk"}, "junk: not valid JSON"),
        ({"policy": "."}, ".*: cannot be read"),
        ({"announcement": "announced.json"}, "the server's architecture is not the expected one: image_scale: 0.03"),
        ({"announcement": "list.json"}, "list.json: not an announcement; make it with the server's --announce option"),
        ({"announcement": "none"}, "none: cannot be read"),
        ({"dataset": "none"}, "none: no such file"),
        ({"dataset": "junk"}, r"junk: not a readable npz archive \(no zip file\); fetch or make it again"),
        ({"dataset": "network.npz"}, "network.npz: not a prepared data set"),
        (
            {"dataset": "large.npz"},
            r"the data set's images have .* \(32, 32, 3\); the server's network takes \(8, 8, 3\)",
        ),
        ({"lines": "cat.png\n"}, f"image 'cat.png': {NO_IMAGE}"),
        ({"lines": "3\n"}, f"image '3': {NO_IMAGE}"),
        ({"lines": "-1\n"}, f"image '-1': {NO_IMAGE}"),
        ({"lines": "\n"}, f"image '': {NO_IMAGE}"),
        ({"lines": "\N{SUPERSCRIPT TWO}\n"}, f"image '\N{SUPERSCRIPT TWO}': {NO_IMAGE}"),
        ({"lines": "\x1b[2J\n"}, rf"image '\\x1b\[2J': {NO_IMAGE}"),
    ],
    ids=str,
)
def test_the_clients_mistakes_are_told_in_one_line(options, message, folder, address, monkeypatch, capsys):
    assert run_client(folder, address, monkeypatch, **options) == 1
    line = told(capsys)
    assert line.startswith("client: ") and re.search(message, line), line


def test_images_before_the_mistake_are_answered(folder, address, monkeypatch, capsys):
    assert run_client(folder, address, monkeypatch, "0\n1\ncat\n") == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.get("image") for answer in answers] == [None, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "none"}, "none: no such file"),
        ({"network": "junk"}, "junk: not a readable npz archive"),
        ({"network": "data.npz"}, "data.npz: not an integer network of format 1; make it again"),
        ({"policy": "junk"}, "junk: not valid JSON"),
        ({"policy": "list.json"}, "list.json: not a policy: "),
        (
            {"policy": "short.json"},
            r"policy darl of residual: layers \['first', 'second'\]; the network has \['first', ",
        ),
        (
            {"clients": "0"},
            "service: 0 clients, a pool of 268435456 bytes, .* of 60 s; expected at least 1 client",
        ),
        ({"listen": "nowhere"}, 'address "nowhere": expected host:port'),
        ({"listen": "taken"}, "cannot listen there .*in use.*; choose another port"),
        ({"announce": "none/file"}, "none/file: cannot be written"),
    ],
    ids=str,
)
def test_the_servers_mistakes_are_told_in_one_line(options, message, folder, address, capsys):
    given = {"network": "network.npz", "policy": "policy.json"} | options
    for name in {"network", "policy", "announce"} & set(given):
        given[name] = str(folder / given[name])
    if given.get("listen") == "taken":
        given["listen"] = address
    assert server_main([f"--{name}={value}" for name, value in given.items()]) == 1
    line = told(capsys)
    assert line.startswith("server: ") and re.search(message, line), line


@pytest.fixture
def programs(folder):
    """A server and a client process in the middle of their session, killed in the end."""
    started = []

    def start(program, *options):
        command = [sys.executable, "-m", f"autoprivacy.protocol.{program}", *options]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.append(subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes))
        return started[-1]

    server = start("server", f"--network={folder / 'network.npz'}", f"--policy={folder / 'policy.json'}")
    client = start("client", f"--connect={server.stdout.readline().strip()}", f"--dataset={folder / 'data.npz'}")
    client.stdin.write("0\n")
    client.stdin.flush()
    for _ in range(2):  # the set-up and an image
        assert client.stdout.readline()
    yield server, client
    for process in started:
        process.kill()
        process.communicate()


def test_a_server_that_is_killed_is_told_in_one_line(programs):
    server, client = programs
    server.kill()
    server.wait()
    _, error = client.communicate("1\n", timeout=60)
    assert client.returncode == 1
    assert re.fullmatch("client: .*(closed the connection|broke).*\n", error), error


def test_a_client_that_is_killed_is_told_in_one_line_and_a_server_ends_quietly(programs):
    server, client = programs
    client.kill()
    assert re.fullmatch("server: session ended: .*(closed the connection|broke).*\n", server.stderr.readline())
    server.send_signal(signal.SIGINT)
    assert server.wait(timeout=60) == 0 and server.stderr.read() == ""


def test_a_client_that_is_interrupted_ends_quietly(programs):
    server, client = programs
    client.send_signal(signal.SIGINT)
    assert client.wait(timeout=60) == INTERRUPTED and client.stderr.read() == ""
    assert server.stderr.readline() == "server: session ended: the peer ended the session: the client stopped\n"
