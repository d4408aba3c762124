"""`python -m autoprivacy`: its commands work on files of one's own, and what is wrong is one line."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.protocol_sessions import NETWORK, POLICY, ROOT
from support.services import MODEL, service

from autoprivacy.cli.infer import answered, in_words
from autoprivacy.cli.main import COMMANDS, main
from autoprivacy.cli.measure import in_words as in_a_table
from autoprivacy.cli.own_images import own_images
from autoprivacy.compiled import VARIABLE, choose_cache
from autoprivacy.data.dataset import Dataset, Split, save
from autoprivacy.errors import UserError
from autoprivacy.gc import rates as garbling_rates
from autoprivacy.he.profiling.profile import OperationProfile
from autoprivacy.lookup import rates as lookup_rates
from autoprivacy.protocol.endpoints import address_text, parse_address

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
CHANNELS, HEIGHT, WIDTH = NETWORK.architecture.nodes[0].shape


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own images")  # a path with a space
    pixels = np.random.default_rng(1).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(np.kron(pixels[0], np.ones((3, 2, 1), np.uint8))).save(folder / "large.png")
    Image.fromarray(pixels[0]).convert("P").save(folder / "palette.gif")
    Image.fromarray(pixels[0, ..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    np.savez(folder / "mine.npz", test_images=pixels)
    np.savez(folder / "floats.npz", images=pixels / 255)
    np.savez(folder / "two.npz", a=pixels, b=pixels)
    (folder / "notes.png").write_text("no image")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    NETWORK.save(folder / "network.npz")
    POLICY.save(folder / "policy.json")
    return folder


@pytest.fixture(scope="module")
def address():
    # kernels that are compiled in the first session may take minutes on a busy machine
    with service(pool=8 * 16 * MODEL.agreement.lengths.server_bundle_bytes, timeout=600.0) as address:
        yield address


def integers(pixels):
    from autoprivacy.quantization.evaluation import Evaluator

    images = NETWORK.architecture.quantize_images(pixels[None])
    return Evaluator(NETWORK, None).forward(images).numpy().reshape(-1).astype(int).tolist()


def test_infer_answers_images_of_ones_own(files, address, capsys):
    given = [str(files / "a.png"), str(files / "mine.npz")]
    assert main(["infer", *given, "--timeout", "600", "--connect", address, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    pixels = np.load(files / "mine.npz")["test_images"]
    assert [line["image"] for line in lines] == [given[0], f"{given[1]}[0]", f"{given[1]}[1]"]
    for line, own in zip(lines, (pixels[0], pixels[0], pixels[1]), strict=True):
        assert list(line["scores"].values()) == integers(own)
        assert line["class"] == int(np.argmax(integers(own))) and line["label"] == f"class {line['class']}"


def test_infer_scales_when_asked(files, address, capsys):
    large = str(files / "large.png")
    assert main(["infer", large, "--timeout", "600", "--connect", address]) == 1
    told = capsys.readouterr().err
    assert "give --resize to scale it" in told and told.count("\n") == 1
    assert main(["infer", large, "--timeout", "600", "--connect", address, "--resize"]) == 0
    assert capsys.readouterr().out.startswith(f"{large}: class ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.png", "damaged image or none"),
        ("dangling.png", "a link to .*nowhere.png, where nothing is"),
        ("none.png", "no such file"),
        ("floats.npz", r"images is float64 of shape .*expected uint8 \[N, H, W, 1 or 3\]"),
        ("two.npz", "arrays a, b; expected images or test_images"),
    ],
)
def test_images_that_are_none(files, name, message):
    with pytest.raises(UserError, match=message):
        list(own_images([str(files / name)], (3, HEIGHT, WIDTH), False))


def test_palette_and_deep_images_and_channels(files):
    ((_, grey),) = own_images([str(files / "deep.png")], (1, HEIGHT, WIDTH), False)
    pixels = np.load(files / "mine.npz")["test_images"]
    assert np.array_equal(grey[..., 0], pixels[0, ..., 0])
    ((_, colours),) = own_images([str(files / "deep.png")], (3, HEIGHT, WIDTH), False)
    assert np.array_equal(colours, np.repeat(grey, 3, 2))
    ((_, palette),) = own_images([str(files / "palette.gif")], (3, HEIGHT, WIDTH), False)
    assert palette.shape == (HEIGHT, WIDTH, 3) and np.abs(palette.astype(int) - pixels[0]).mean() < 40


def test_labels_alone_and_class_names():
    assert answered(np.array([2]), "label", ["ant", "bee", "cow"]) == {"class": 2, "label": "cow"}
    record = {"image": "a.png", "seconds": 1.0, **answered(np.array([3, 9, -1]), "logits", ["ant", "bee", "cow"])}
    assert in_words(record, 2) == "a.png: bee  (bee 9, ant 3)  1.00 s"


def test_inspect_shows_policies_and_networks(files, capsys):
    assert main(["inspect", str(files / "policy.json")]) == 0
    shown = capsys.readouterr().out
    assert "p bits" in shown and all(layer.name in shown for layer in POLICY.layers)
    assert main(["inspect", str(files / "network.npz"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in rows] == list(NETWORK.layers)
    assert rows[0]["weights"] == next(iter(NETWORK.layers.values())).weight.size
    assert main(["inspect", str(files / "a.png")]) == 1
    assert "expected a policy, .json, or a network, .npz" in capsys.readouterr().err


def test_measure_runs_both_parties_over_a_link(files, capsys):
    images = np.random.default_rng(2).integers(0, 256, (3, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    labels = np.arange(3) % 2
    split = Split(images, labels)
    save(Dataset("own", split, split, (0.5,) * CHANNELS, (0.25,) * CHANNELS, "here"), files / "dataset.npz")
    given = ["measure", "--dataset", str(files / "dataset.npz"), "--images", "2"]
    given += ["--network", str(files / "network.npz"), "--policy", str(files / "policy.json")]
    assert main([*given, "--link", "lan", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["link"] == {"bits_per_second": 1e9, "round_trip_seconds": 1e-3} and len(record["images"]) == 2
    assert in_a_table(record, POLICY, 0).count("\n") > 6
    assert main([*given, "--link", "moon"]) == 1
    assert "--link moon; expected one of loopback, lan, wan" in capsys.readouterr().err


@pytest.mark.slow
def test_profile_measures_all_that_select_asks_for(tmp_path, capsys):
    made = str(tmp_path / "profile.json")
    assert main(["profile", "--degrees", "1024", "--maximum-primes", "1", "--repeats", "3", "--output", made]) == 0
    assert {*garbling_rates.OPERATIONS, *lookup_rates.OPERATIONS} <= OperationProfile.load(made).garbling.keys()
    assert capsys.readouterr().out == f"{made}\n"


def test_doctor_finds_this_installation_sound(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "failed" not in shown and "encrypts and decrypts" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0 and "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[::1]:9000", ("::1", 9000)), ("localhost:0", ("localhost", 0)), ("127.0.0.1:65535", ("127.0.0.1", 65535))],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected and address_text(*expected) == text


@pytest.mark.parametrize("text", ["::1:9471", "localhost:9²", "localhost:65536", ":9000", "localhost", "localhost:-1"])
def test_addresses_that_are_none(text):
    with pytest.raises(UserError, match="expected host:port with a port up to 65535, an IPv6 address in brackets"):
        parse_address(text)


def test_the_server_listens_on_ipv6_and_the_client_finds_it(files, capsys):
    command = [sys.executable, "-m", "autoprivacy", "serve", "--listen", "[::1]:0"]
    command += ["--network", str(files / "network.npz"), "--policy", str(files / "policy.json")]
    server = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("[::1]:")
        assert main(["infer", str(files / "a.png"), "--timeout", "600", "--connect", address]) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_closed_pipe_and_a_full_disk_are_one_line(files, address):
    command = [
        sys.executable,
        "-m",
        "autoprivacy",
        "infer",
        str(files / "mine.npz"),
        "--timeout",
        "600",
        "--connect",
        address,
    ]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 1 and run.stderr.endswith(
        "No space left on device; free some space or name another disk\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(command, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert run.returncode == 1 and "Broken pipe; whoever read the output has stopped reading it" in run.stderr
    assert "Traceback" not in run.stderr


def test_where_kernels_are_kept_without_a_writable_place(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("autoprivacy.compiled._writable", lambda place: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    choose_cache()
    place = tmp_path / f"autoprivacy-{os.getuid()}"
    assert os.environ[VARIABLE] == str(place) and stat.S_IMODE(place.stat().st_mode) == 0o700
    place.chmod(0o777)  # others could put code into it
    monkeypatch.delenv(VARIABLE)
    choose_cache()
    assert VARIABLE not in os.environ


def test_a_config_is_read_before_snakemake_starts(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("study: a\n\tseed: 1\n")
    assert main(["run", str(tmp_path / "a.yaml")]) == 1
    assert "line 2: not valid YAML: a tab" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "b.yaml")]) == 1
    assert "b.yaml: no such file" in capsys.readouterr().err
