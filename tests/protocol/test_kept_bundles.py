"""Bundles on disk: the same outputs after a restart, one use each across crashes, damage told in one line."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from support.kept_sessions import GARBLED, LOOKED_UP, P, folders, kept_session, with_lookups
from support.protocol_sessions import IMAGES, NETWORK, POLICY, ask_for, session
from support.reference import reference_forward
from test_programs import ENVIRONMENT, save_images
from test_squared_activations import NETWORK as SQUARES
from test_squared_activations import POLICY as SQUARING

from autoprivacy.data.dataset import load
from autoprivacy.errors import UserError
from autoprivacy.protocol.channel import Channel, Message, ProtocolError
from autoprivacy.protocol.kept_bundles import SERVER, Content
from autoprivacy.protocol.sealed_files import RECORD, Seal, SealedFolder
from autoprivacy.quantization.outputs import shown

MIXED = with_lookups(GARBLED, "second")
CASES = {
    "circuits": (POLICY, NETWORK),
    "lookups": (LOOKED_UP, NETWORK),
    "silent lookups": (replace(LOOKED_UP, silent_table_bits=16), NETWORK),
    "both": (MIXED, NETWORK),
    "the label alone": (replace(POLICY, output="label"), NETWORK),
    "squares": (SQUARING, SQUARES),
}


def wait_until(condition):
    """Until it holds; a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reference(policy, network, image):
    outputs = reference_forward(network, image, policy.residues(network.architecture))
    return shown(
        outputs, policy.output, policy.residues(network.architecture).read[network.architecture.nodes[-1].name]
    )


@pytest.mark.parametrize("name", CASES)
def test_bundles_outlive_both_parties(name, tmp_path):
    policy, network = CASES[name]
    rng = np.random.default_rng(5)
    images = rng.integers(-128, 128, (3, *network.architecture.nodes[0].shape))
    with kept_session(tmp_path, policy, network) as (client, _, _):
        prepared = [client.prepare().number for _ in images]
        sent = client.channel.bytes_sent
    assert sent > 0
    with kept_session(tmp_path, policy, network) as (client, places, _):
        assert client.prepared == 3 and [place.numbers() for place in places] == [prepared, prepared]
        for image, number in zip(images, prepared, strict=True):
            bundle = client.ready()
            assert bundle.number == number
            assert np.array_equal(client.infer(bundle, image), reference(policy, network, image))
        assert client.prepared == 0 and [place.numbers() for place in places] == [[], []]
        assert Message.PREPARE.name not in client.channel.sent
        assert np.array_equal(client.infer(client.prepare(), images[0]), reference(policy, network, images[0]))


def test_a_bundle_is_destroyed_before_anything_that_depends_on_it_is_sent(tmp_path, monkeypatch):
    seen, send = {}, Channel.send
    with kept_session(tmp_path, LOOKED_UP) as (client, places, _):
        for number in (client.prepare().number, client.prepare().number):
            files = [place.folder.file(number) for place in places]
            wait_until(lambda files=files: all(file.exists() for file in files))  # the server may be behind

            def sending(channel, message, *parts, files=files):
                seen.setdefault(message, []).append([file.exists() for file in files])
                send(channel, message, *parts)

            with monkeypatch.context() as patch:
                patch.setattr(Channel, "send", sending)
                client.infer(client.ready(), IMAGES[0])
    assert seen[Message.INFER] == [[False, True]] * 2
    later = Message.LOOKUP_QUESTION, Message.LOOKUP_ANSWER, Message.OUTPUT_SHARE
    others = [there for kind in later for there in seen[kind]]
    assert len(others) > 4 and not any(map(any, others))


def test_a_bundle_is_used_once_whatever_is_in_memory(tmp_path):
    """Two sessions that have the same bundle at hand: who destroys the file may use it."""
    with folders(tmp_path) as (own, others):
        with session(folder=others) as (client, _):
            client.resume(own)
            client.prepare()
        with session(folder=others) as (first, _), session(folder=others) as (second, _):
            first.resume(own)
            second.resume(own)
            bundles = first.ready(), second.ready()
            assert bundles[0].number == bundles[1].number
            assert np.array_equal(
                first.infer(bundles[0], IMAGES[0]), reference_forward(NETWORK, IMAGES[0], POLICY.plaintext_modulus)
            )
            sent = second.channel.bytes_sent
            with pytest.raises(ProtocolError, match="was used before; prepare a new one"):
                second.infer(bundles[1], IMAGES[1])
            assert second.channel.bytes_sent == sent


def test_a_new_bundle_of_a_used_number_does_not_bring_the_old_one_back(tmp_path):
    """Prepared again under the number of one that a session still has at hand: its labels would be sent twice."""
    with folders(tmp_path) as (own, others):
        with session(folder=others) as (client, _):
            client.resume(own)
            number = client.prepare().number
        with session(folder=others) as (first, _), session(folder=others) as (second, _):
            first.resume(own)
            second.resume(own)
            assert first.infer(first.ready(), IMAGES[0]).shape == (5,)
            with session(folder=others) as (third, _):
                third.resume(own)
                third._random = FixedNumber(number)
                third.prepare()
                assert others.numbers() == [number]
            with pytest.raises(ProtocolError, match="was used before; prepare a new one"):
                ask_for(second, number)
        assert others.numbers() == [number]


class FixedNumber:
    """Randomness of a client that chooses the number of its bundle."""

    def __init__(self, number):
        self.number = number

    def random_bytes(self, count):
        return np.frombuffer(self.number.to_bytes(count, "little"), np.uint8)


def test_what_one_party_lacks_is_destroyed(tmp_path):
    with kept_session(tmp_path) as (client, places, _):
        lost, kept = client.prepare().number, client.prepare().number
        assert places[1].folder.destroy(lost)
    with kept_session(tmp_path) as (client, places, _):
        assert client.prepared == 1 and places[0].numbers() == [kept]


def test_a_server_that_keeps_none_says_so(tmp_path):
    with (
        folders(tmp_path) as (own, _),
        session() as (client, _),
        pytest.raises(ProtocolError, match="this server keeps no bundles; start it with --bundles DIR, or the cli"),
    ):
        client.resume(own)


def test_a_client_names_its_bundles_once(tmp_path):
    """Ten bytes each made the server read its folder, and log a line for every foreign file in it."""
    with kept_session(tmp_path) as (client, (own, _), _), pytest.raises(ProtocolError, match="BUNDLES came twice"):
        client.resume(own)


def test_a_client_is_not_told_where_the_servers_files_are(tmp_path, monkeypatch):
    def full(old, new, replace=os.replace):
        if "server" in str(new):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr("autoprivacy.protocol.sealed_files.os.replace", full)
    words = r"session: [0-9a-f]{16}\.bundle: cannot be written \(No space left"
    with kept_session(tmp_path) as (client, _, _), pytest.raises(ProtocolError, match=words):
        client.prepare()
        client.infer(client.ready(), IMAGES[0])
    assert not list((tmp_path / "server").glob("*.part"))


def test_the_disk_has_a_limit(tmp_path):
    with kept_session(tmp_path, limit=1 << 20) as (client, (own, _), _):
        with pytest.raises(ProtocolError, match="bundles on disk would take more than the 1048576 bytes allowed"):
            for _ in range(20):
                client.prepare()
        assert own.folder.size() <= 1 << 20


@pytest.fixture
def prepared(tmp_path):
    """The folder of both parties with a bundle each, and its number."""
    with kept_session(tmp_path) as (client, _, _):
        number = client.prepare().number
    return tmp_path, number


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"junk"), "no bundle, or a damaged one; remove it"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "no bundle, or a damaged one; remove it"),
        (lambda path: flip(path, 60), "damaged, used, or sealed under another key; remove it"),
        (lambda path: flip(path, 8), "the other party's bundle; name a folder for each party"),
        (lambda path: flip(path, 20), "a bundle for another network, policy or version; not used"),
        (lambda path: flip(path, 9), "a bundle under another's name; remove it"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line_and_not_used(damage, message, prepared, caplog):
    folder, number = prepared
    damage(folder / "client" / f"{number:016x}.bundle")
    with kept_session(folder) as (client, _, _):
        assert client.prepared == 0 and client.ready() is None
        assert client.infer(client.prepare(), IMAGES[0]).shape == (5,)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1 and re.search(message, lines[0]) and "\n" not in lines[0]


@pytest.mark.parametrize("place", [200, -1])
def test_damage_of_the_content_is_told_when_it_is_read(place, prepared, caplog):
    folder, number = prepared
    flip(folder / "client" / f"{number:016x}.bundle", place)
    with kept_session(folder) as (client, (own, _), _):
        assert client.prepared == 1 and client.ready() is None and client.prepared == 0
        assert own.numbers() == []
        assert client.infer(client.prepare(), IMAGES[0]).shape == (5,)
    assert [record.getMessage() for record in caplog.records] == [f"{own.folder.file(number)}: damaged; remove it"]


def test_a_server_whose_bundle_is_damaged_tells_its_client(prepared):
    folder, number = prepared
    flip(folder / "server" / f"{number:016x}.bundle", -1)
    with kept_session(folder) as (client, (_, others), _):
        with pytest.raises(ProtocolError, match="bundle [0-9]+ was used before; prepare a new one|damaged"):
            client.infer(client.ready(), IMAGES[0])
        assert others.numbers() == []


def test_bundles_are_for_one_agreement_and_one_network(prepared, caplog):
    folder, _ = prepared
    with kept_session(folder, replace(POLICY, tree_bits=8)) as (client, _, _):
        assert client.prepared == 0
    heavier = replace(
        NETWORK, layers={name: replace(layer, bias=layer.bias + 1) for name, layer in NETWORK.layers.items()}
    )
    with kept_session(folder, replace(POLICY, commitment=None), heavier) as (client, _, _):
        assert client.prepared == 0  # the client's own file is bound to the agreement alone, and destroyed
    assert all("another network, policy or version" in record.getMessage() for record in caplog.records)


def test_content_is_encrypted_and_private(prepared):
    folder, number = prepared
    for party in ("client", "server"):
        assert (folder / party).stat().st_mode & 0o777 == 0o700
        for file in (folder / party).iterdir():
            assert file.stat().st_mode & 0o077 == 0, file
        content = (folder / party / f"{number:016x}.bundle").read_bytes()
        assert b"masks" not in content and b"relu1" not in content
        with SealedFolder(folder / party) as opened:
            plain, _ = opened.read(number, Seal(party[:1].encode(), content[17:49]))
        assert b'"masks"' in plain and Content(plain).fields["masks"]


class TestSealedFiles:
    seal = Seal(SERVER, bytes(range(32)))

    @pytest.mark.parametrize("size", [0, 1, RECORD, RECORD + 1])
    def test_what_is_written_is_read(self, size, tmp_path):
        content = np.random.default_rng(1).bytes(size)
        with SealedFolder(tmp_path / "a") as folder:
            folder.write(7, self.seal, content)
            assert folder.read(7, self.seal)[0] == content
            assert folder.destroy(7) and not folder.destroy(7)
            with pytest.raises(UserError, match="cannot be read"):
                folder.read(7, self.seal)

    def test_records_cannot_be_cut_off_or_moved(self, tmp_path):
        with SealedFolder(tmp_path) as folder:
            folder.write(7, self.seal, bytes(2 * RECORD))
            content = folder.file(7).read_bytes()
            head = len(content) - 2 * (RECORD + 16)
            first, second = content[head : head + RECORD + 16], content[head + RECORD + 16 :]
            for records in (first, second + first, first + second[:-1], b"", first + second + first):
                folder.file(7).write_bytes(content[:head] + records)
                with pytest.raises(UserError, match="damaged; remove it"):
                    folder.read(7, self.seal)

    def test_a_key_that_was_overwritten_opens_nothing(self, tmp_path, monkeypatch):
        """A crash between overwriting the key and removing the name."""
        with SealedFolder(tmp_path) as folder:
            folder.write(7, self.seal, b"secret")
            monkeypatch.setattr("pathlib.Path.unlink", lambda *a, **b: (_ for _ in ()).throw(OSError("crash")))
            with pytest.raises(OSError, match="crash"):
                folder.destroy(7)
            with pytest.raises(UserError, match="damaged, used, or sealed under another key"):
                folder.check(folder.file(7), self.seal)

    def test_one_process_uses_a_folder(self, tmp_path):
        words = "another process uses these bundles; name a folder for each party"
        with SealedFolder(tmp_path), pytest.raises(UserError, match=words):
            SealedFolder(tmp_path)
        SealedFolder(tmp_path).close()

    def test_others_may_not_write_to_a_folder(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a").chmod(0o777)
        with pytest.raises(UserError, match="a: others may write to this folder; chmod 700 it"):
            SealedFolder(tmp_path / "a")

    def test_what_a_killed_write_left_is_removed(self, tmp_path):
        SealedFolder(tmp_path).close()
        (tmp_path / "0000000000000007.part").write_bytes(b"half")
        SealedFolder(tmp_path).close()
        assert sorted(file.name for file in tmp_path.iterdir()) == ["key", "lock"]

    def test_keys(self, tmp_path):
        with SealedFolder(tmp_path / "a", tmp_path / "key") as folder:
            folder.write(7, self.seal, b"secret")
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        words = "damaged, used, or sealed under another key; remove it"
        with SealedFolder(tmp_path / "a", tmp_path / "other") as folder, pytest.raises(UserError, match=words):
            folder.read(7, self.seal)
        (tmp_path / "key").chmod(0o644)
        with pytest.raises(UserError, match="others may read this key; chmod 600 it"):
            SealedFolder(tmp_path / "a", tmp_path / "key")
        (tmp_path / "key").chmod(0o600)
        (tmp_path / "key").write_bytes(b"short")
        with pytest.raises(UserError, match="a key of 5 bytes, expected 32"):
            SealedFolder(tmp_path / "a", tmp_path / "key")

    def test_a_place_that_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="file: cannot be used for bundles .*; name another folder"):
            SealedFolder(tmp_path / "file")


class Programs:
    """Client and server as processes that keep bundles, to be killed and started again."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        NETWORK.save(folder / "network.npz")
        LOOKED_UP.save(folder / "policy.json")
        save_images(folder / "data.npz", 8)

    def start(self, program, *options):
        kept = f"--bundles={self.folder / program}"
        command = [sys.executable, "-m", f"autoprivacy.protocol.{program}", kept, *options]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = self.stack.enter_context(subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes))
        self.stack.callback(process.kill)
        return process

    def both(self, pool):
        files = [f"--network={self.folder / 'network.npz'}", f"--policy={self.folder / 'policy.json'}"]
        server = self.start("server", *files)
        address = server.stdout.readline().strip()
        client = self.start("client", f"--connect={address}", f"--dataset={self.folder / 'data.npz'}", f"--pool={pool}")
        assert "phases" in json.loads(client.stdout.readline())
        return server, client

    def held(self):
        return [sorted(file.name for file in (self.folder / party).glob("*.bundle")) for party in ("client", "server")]


def ask(client, image):
    client.stdin.write(f"{image}\n")
    client.stdin.flush()
    return json.loads(client.stdout.readline())


def kill(*processes):
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_processes_killed_between_preparing_and_using_go_on_with_what_both_hold(tmp_path):
    with ExitStack() as stack:
        programs = Programs(tmp_path, stack)
        images = load(tmp_path / "data.npz").test.images
        server, client = programs.both(pool=3)
        wait_until(lambda: len(programs.held()[1]) == 3)  # the server may be behind
        kill(server, client)
        first = programs.held()
        assert len(first[0]) == 3 and first[0] == first[1]
        server, client = programs.both(pool=0)
        used = set()
        for number in range(3):
            answer = ask(client, number)
            assert answer["prepared_ahead"] and not any(phase["phase"] == "offline" for phase in answer["phases"])
            image = NETWORK.architecture.quantize_images(images[number][None])[0]
            assert answer["outputs"] == reference_forward(NETWORK, image, P).tolist()
            held = programs.held()
            assert held[0] == held[1] and len(held[0]) == 2 - number  # both gone before the first message
            used |= set(first[0]) - set(held[0])
        assert used == set(first[0])
        assert not ask(client, 0)["prepared_ahead"]


def test_a_bundle_that_was_begun_does_not_come_back(tmp_path):
    """The client is killed when it has sent the first message: neither party has the bundle then."""
    with ExitStack() as stack:
        programs = Programs(tmp_path, stack)
        server, client = programs.both(pool=2)
        wait_until(lambda: len(programs.held()[1]) == 2)
        before = programs.held()[0]
        server.send_signal(signal.SIGSTOP)  # so that the image is not answered
        client.stdin.write("0\n")
        client.stdin.flush()
        wait_until(lambda: len(programs.held()[0]) == 1)
        kill(client)
        server.send_signal(signal.SIGCONT)
        kill(server)
        (left,) = programs.held()[0]
        assert left in before
        server, client = programs.both(pool=0)
        assert programs.held()[0] == [left]
        assert ask(client, 1)["prepared_ahead"] and programs.held()[0] == [] and not ask(client, 1)["prepared_ahead"]
