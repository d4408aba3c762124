"""Measurements: two processes, every byte and second in its place, a pool that runs dry, a slower network, outputs that
differ; and nothing of the processes left behind."""

import contextlib
import gc
import os
import socket
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from support.protocol_sessions import FLOODED, FLOODED_SLOTS, NETWORK, P_PRIME, POLICY
from support.reference import reference_forward
from support.services import service

from autoprivacy.data.dataset import Dataset, Split, save
from autoprivacy.errors import UserError
from autoprivacy.he.parameters.parameter_set import Target
from autoprivacy.memory import peak_memory_bytes
from autoprivacy.protocol.channel import HEADER, Channel, Message
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.endpoints import connect
from autoprivacy.protocol.ledger import Ledger
from autoprivacy.protocol.measurement import (
    Contender,
    MeasureSettings,
    NetworkSetting,
    Throughput,
    measure,
)
from autoprivacy.search.differences import nearest, simulated_differences, simulated_rms
from autoprivacy.selection.schemes import layerwise
from autoprivacy.timing import quartiles

COUNT = 2
PIXELS = np.random.default_rng(5).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
PARTIES = ("client", "server")
SETTINGS = MeasureSettings(COUNT, timeout=60.0)
SHARE_BITS = 6  # that activations ignore: the smaller shift of the two


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A contender and its data set on disk."""
    folder = tmp_path_factory.mktemp("measured")
    split = Split(PIXELS, np.arange(COUNT))
    save(Dataset("made-up", split, split, (0.5,) * 3, (0.25,) * 3, "a test"), folder / "data.npz")
    NETWORK.save(folder / "network.npz")
    POLICY.save(folder / "policy.json")
    images = NETWORK.architecture.quantize_images(PIXELS)
    expected = np.stack([reference_forward(NETWORK, image, P_PRIME) for image in images])
    return Contender(folder / "network.npz", folder / "policy.json", expected), folder / "data.npz"


@pytest.fixture(scope="module")
def measured(files):
    """One contender's record over a link, with a run of four images on a pool of two."""
    contender, dataset = files
    network = NetworkSetting("slow", 4e8, 0.002)
    settings = MeasureSettings(COUNT, timeout=60.0, throughput=Throughput(2, 4), network=network)
    (record,) = measure([contender], dataset, np.arange(COUNT), settings)
    return record


def test_exactness_is_recorded_as_such(measured):
    assert measured["rms_difference"] == 0 and measured["simulated_rms_difference"] is None
    assert measured["ignored_share_bits"] == 0


def test_a_client_that_learns_the_class_alone_is_measured_too(files, tmp_path):
    contender, dataset = files
    policy = replace(POLICY, output="label")
    policy.save(tmp_path / "label.json")
    expected = nearest(NETWORK, policy, NETWORK.architecture.quantize_images(PIXELS))
    assert np.array_equal(expected[:, 0], contender.expected.argmax(1))
    (record,) = measure(
        [Contender(contender.network, tmp_path / "label.json", expected)], dataset, np.arange(COUNT), SETTINGS
    )
    assert record["output"] == "label" and record["rms_difference"] == 0
    assert [image["prediction"] for image in record["images"]] == expected[:, 0].tolist()
    assert record["summary"]["m_on"]["median"] > 0


@pytest.mark.parametrize("selection", [FLOODED, FLOODED_SLOTS], ids=lambda selection: selection.packing)
def test_ignored_share_bits_are_measured_as_simulated(selection, tmp_path):
    """Between two processes: outputs round at random, so they are off, by as much as in the simulation."""
    pixels = np.random.default_rng(9).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    split = Split(pixels, np.zeros(len(pixels), np.int64))
    save(Dataset("made-up", split, split, (0.5,) * 3, (0.25,) * 3, "a test"), tmp_path / "data.npz")
    target = Target(2.0**-40, ignored_share_bits=SHARE_BITS)
    policy = layerwise(NETWORK, "residual", P_PRIME, dict.fromkeys(NETWORK.layers, target), selection)
    NETWORK.save(tmp_path / "network.npz")
    policy.save(tmp_path / "policy.json")
    images = NETWORK.architecture.quantize_images(pixels)
    simulated = simulated_rms(NETWORK, policy, images, 1)
    contender = Contender(
        tmp_path / "network.npz", tmp_path / "policy.json", nearest(NETWORK, policy, images), simulated
    )
    (record,) = measure([contender], tmp_path / "data.npz", split.labels, replace(SETTINGS, images=len(pixels)))
    assert not record["exact"] and record["ignored_share_bits"] == SHARE_BITS
    assert record["simulated_rms_difference"] == simulated
    assert all(image["differing_outputs"] for image in record["images"])
    own = np.array([image["rms_difference"] for image in record["images"]])
    assert record["rms_difference"] == pytest.approx(np.sqrt(np.mean(own**2)))
    # an image's mean square is one draw; the mean of as many has a spread of its own
    squares = np.square(simulated_differences(NETWORK, policy, images, 2, 50), dtype=np.float64).mean(-1)
    spread = squares.std() / np.sqrt(len(pixels))
    assert abs(np.mean(own**2) - simulated**2) < 4.5 * spread and spread < 0.3 * simulated**2


def test_nothing_is_simulated_of_policies_that_are_exact_or_predict_nothing():
    images = NETWORK.architecture.quantize_images(PIXELS)
    assert simulated_rms(NETWORK, POLICY, images, 1) == 0
    tolerant = layerwise(NETWORK, "residual", P_PRIME, dict.fromkeys(NETWORK.layers, Target(0.5)), FLOODED)
    assert simulated_rms(NETWORK, tolerant, images, 1) > 1
    written = replace(tolerant, layers=tuple(replace(layer, predicted={}) for layer in tolerant.layers))
    assert simulated_rms(NETWORK, written, images, 1) is None


def phases(record):
    yield record["set_up"]
    for image in record["images"]:
        yield from (image["offline"], image["online"])


def test_outputs_are_those_of_the_integer_network(measured):
    assert measured["exact"] and [image["differing_outputs"] for image in measured["images"]] == [0] * COUNT
    assert measured["network_setting"] == "slow"
    assert measured["link"] == {"bits_per_second": 4e8, "round_trip_seconds": 0.002}


def test_both_parties_count_the_same_bytes_by_phase_message_and_part(measured):
    for phase in phases(measured):
        client, server = (phase[party] for party in PARTIES)
        for one, other in (("sent", "received"), ("received", "sent")):
            assert client["messages"][one] == server["messages"][other]
            for party in (client, server):
                total = party[f"bytes_{one}"]
                assert total == sum(party["messages"][one].values())
                assert total == sum(part[f"bytes_{one}"] for part in party["parts"])


def test_the_parts_add_up_to_each_phase(measured):
    for phase in phases(measured):
        for party in PARTIES:
            for quantity in ("cpu_seconds", "seconds"):
                total = sum(part[quantity] for part in phase[party]["parts"])
                assert total == pytest.approx(phase[party][quantity], rel=0.01)


def test_little_lies_outside_the_named_kinds_of_work(measured):
    """Even where layers take microseconds; what lies outside is the walk over the graph and the ledger's own work."""
    offline = [image["offline"][party] for image in measured["images"] for party in PARTIES]
    parts = [part for phase in offline for part in phase["parts"]]
    outside = sum(part["cpu_seconds"] for part in parts if part["kind"] == "session")
    assert outside < 0.3 * sum(phase["cpu_seconds"] for phase in offline)
    assert {part["kind"] for part in parts} == {"he", "garbling", "ot", "lookup", "shares", "session", "waiting"}


def test_peak_memory_is_each_process_own(measured):
    """More than Python and numpy need, less than the process of these tests, which started both, has had."""
    for party in PARTIES:
        assert 30e6 < measured["peak_memory_bytes"][party] < 2e9


def test_peak_memory_grows_with_what_is_touched():
    before = peak_memory_bytes()
    touched = np.ones(1 << 26, np.uint8)
    assert peak_memory_bytes() >= max(before, touched.nbytes)


def test_a_pool_serves_the_first_images_and_runs_dry(measured):
    rate = measured["throughput"]
    assert (rate["pool"], rate["images"], rate["images_differing"]) == (2, 4, 0)
    assert rate["images_per_second"] > 0
    # that images from the pool have no offline phase is what the next test shows, by phases instead of seconds
    assert rate["seconds_from_pool"]["median"] > 0
    assert rate["seconds_pool_dry"]["median"] > 0


def test_a_pool_answers_with_the_online_phase_alone(files, tmp_path):
    contender, dataset = files
    with SETTINGS.pair(contender, dataset, tmp_path / "report.json", pool=2) as pair:
        ready = [phase["phase"] for phase in pair.client_phases]
        answers = pair.infer(0, 1, 0)
        server = pair.finish()
    assert ready == ["set-up", "offline", "offline"]
    assert [[phase["phase"] for phase in answer["phases"]] for answer in answers[:2]] == [["online"]] * 2
    assert [answer["prepared_ahead"] for answer in answers] == [True, True, False]
    assert [answer["outputs"] for answer in answers] == contender.expected[[0, 1, 0]].tolist()
    assert [phase["phase"] for phase in server["phases"]][-1] == "closing"


def asked_for_too_much(pair):
    with pytest.raises(UserError, match="the client stopped with status 1; its message is above"):
        pair.infer(COUNT)


def deserted(pair):
    pair._client.kill()
    pair._client.wait()
    for _ in range(2):  # the client's pipe is found broken, then empty
        with pytest.raises(UserError, match="the client stopped with status -9; its message is above"):
            pair.infer(0)
    with pytest.raises(UserError, match="the client stopped with status -9"):
        pair.finish()
    assert pair._server.wait(timeout=30) == 1  # its session failed


def interrupted(pair):
    pair.infer(0)
    raise KeyboardInterrupt


WAYS = {
    "finished": lambda pair: pair.infer(0) and pair.finish(),
    "finished at once": lambda pair: pair.finish(),
    "left": lambda pair: None,
    "asked for too much": asked_for_too_much,
    "deserted": deserted,
    "interrupted": interrupted,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_process_and_no_pipe_stays_behind(files, tmp_path, way):
    contender, dataset = files
    before = os.listdir("/proc/self/fd")
    with leaving_nothing():
        with contextlib.suppress(KeyboardInterrupt), SETTINGS.pair(contender, dataset, tmp_path / "r.json") as pair:
            WAYS[way](pair)
        del pair
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("missing", ["network", "policy", "dataset"])
def test_no_process_and_no_pipe_stays_behind_where_a_party_does_not_start(files, tmp_path, missing):
    contender, dataset = files
    if missing == "dataset":
        dataset = tmp_path / "none.npz"
    else:
        contender = replace(contender, **{missing: tmp_path / "none"})
    before = os.listdir("/proc/self/fd")
    with leaving_nothing(), pytest.raises(UserError, match="stopped with status 1; its message is above"):
        SETTINGS.pair(contender, dataset, tmp_path / "report.json")
    assert os.listdir("/proc/self/fd") == before


@contextlib.contextmanager
def leaving_nothing():
    """Fails where the block leaves a child process, or an object that warns when it is collected."""
    warned, hook = [], sys.unraisablehook
    sys.unraisablehook = warned.append
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert warned == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_party_that_fails_ends_the_measurement_in_one_line(files, tmp_path):
    contender, dataset = files
    missing = Contender(contender.network, tmp_path / "none.json", contender.expected)
    with pytest.raises(UserError, match="the server stopped with status 1; its message is above"):
        measure([missing], dataset, np.arange(COUNT), MeasureSettings(COUNT))


def test_medians_and_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 10.0]) == {"median": 3.0, "lower_quartile": 2.0, "upper_quartile": 4.0}


@contextlib.contextmanager
def proxy(address):
    """A TCP relay that counts what passes; yields its address and the counts, client to server and back."""
    counts = [0, 0]

    def relay(source, target, direction):
        while data := source.recv(1 << 16):
            counts[direction] += len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def run():
        inner, _ = listener.accept()
        host, port = address.split(":")
        with inner, socket.create_connection((host, int(port))) as outer:
            back = threading.Thread(target=relay, args=(outer, inner, 1))
            back.start()
            relay(inner, outer, 0)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", counts
        thread.join(timeout=20)


def test_a_proxy_between_the_parties_counts_the_same_bytes():
    with service() as address, proxy(address) as (between, counts):
        client = Client(connect(between, 20))
        client.infer(client.prepare(), np.zeros((3, 8, 8), np.int64))
        client.close()
    recorded = client.ledger.phases
    assert sum(phase["bytes_sent"] for phase in recorded) == counts[0]
    assert sum(phase["bytes_received"] for phase in recorded) == counts[1]


def test_bytes_between_phases_belong_to_the_next_and_parts_add_up():
    left, right = socket.socketpair()

    class Wrapped:
        def setsockopt(self, *_):
            pass

        def __getattr__(self, name):
            return getattr(left, name)

    channel = Channel(Wrapped(), 5)
    ledger = Ledger(channel)
    channel.send(Message.PREPARE, b"12345678")
    with ledger.phase("offline", 0):
        for size in (1, 2):
            with ledger.part("conv", "he"):
                channel.send(Message.ENCRYPTED_MASKS, bytes(size))
    with ledger.phase("closing"):
        pass
    channel.close()
    right.close()
    (phase, closing) = ledger.phases
    request, masks = HEADER.size + 8, 2 * HEADER.size + 3
    assert phase["messages"] == {"sent": {"PREPARE": request, "ENCRYPTED_MASKS": masks}, "received": {}}
    assert {(part["layer"], part["kind"]): part["bytes_sent"] for part in phase["parts"]} == {
        ("all", "session"): request,
        ("conv", "he"): masks,
    }
    for quantity in ("seconds", "cpu_seconds"):
        assert sum(part[quantity] for part in phase["parts"]) == pytest.approx(phase[quantity])
    assert closing["bytes_sent"] == 0 and phase["bytes_sent"] == request + masks
