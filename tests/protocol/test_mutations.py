"""Announcements and messages that are altered at random: one clear line each, in bounded time and memory.

`test_fuzzing` alters every message in ways that are chosen; here hypothesis and a generator choose.
"""

import copy
import json
import logging
import math
import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.inverted_residual import inverted_residual_network
from support.kept_sessions import LOOKED_UP
from support.protocol_sessions import FLOODED, NETWORK, P_PRIME, POLICY, SLOT_POLICY

from autoprivacy.errors import UserError
from autoprivacy.protocol.channel import STRANGER, Channel
from autoprivacy.protocol.client import Client
from autoprivacy.protocol.server_session import Model, serve
from autoprivacy.protocol.session import Agreement
from autoprivacy.selection.schemes import darl

SECONDS = 20.0  # that an announcement may take to be checked, on a busy machine
GROWTH_BYTES = 200 << 20
ANNOUNCEMENTS, SESSIONS = 8000, 2000  # of the slow tests
AT_ONCE = 8
TIMEOUT = 2.0  # of sessions whose peers wait for what does not come
OTHER = inverted_residual_network()
TOLD = [
    json.loads(Agreement(network.architecture, policy).to_bytes())
    for network, policy in (
        (NETWORK, POLICY),
        (NETWORK, SLOT_POLICY),
        (NETWORK, LOOKED_UP),
        (OTHER, darl(OTHER, "inverted", P_PRIME, FLOODED)),
    )
]
VALUES = [0, 1, -1, 2, 3, 7, 255, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 62, 1 << 64, 1 << 200, -(1 << 70)]
VALUES += [0.5, -0.0, 1e308, math.nan, math.inf, True, False, None, "", "image", "conv", "\x1b[2J", "a\nb", "x" * 5000]
VALUES += [[], {}, [[]], [1] * 3, [0, 0, 0], [1 << 40] * 3, ["image"], ["image", "image"], {"name": "x"}, [None] * 1000]


def places(value, path=()):
    """The paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


PLACES = [list(places(told)) for told in TOLD]


def at(value, path):
    for key in path:
        value = value[key]
    return value


def altered(told, paths, choice, place, other, value):
    """An announcement with one entry replaced, removed, repeated, exchanged or put somewhere else."""
    told = copy.deepcopy(told)
    *parents, key = path = paths[place % len(paths)]
    holder, source = at(told, parents), paths[other % len(paths)]
    if choice == "replace":
        holder[key] = VALUES[value % len(VALUES)]
    elif choice == "remove":
        del holder[key]
    elif choice == "nudge" and isinstance(holder[key], (int, float)):
        holder[key] += value % 5 - 2
    elif choice == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif choice == "exchange" and isinstance(holder, list):
        holder[key], holder[value % len(holder)] = holder[value % len(holder)], holder[key]
    elif source != path[: len(source)]:
        holder[key] = copy.deepcopy(at(told, source))
    return told


CHOICES = ["replace", "remove", "nudge", "repeat", "exchange", "copy"]
alterations = st.lists(st.tuples(st.sampled_from(CHOICES), *[st.integers(0, 1 << 16)] * 3), min_size=1, max_size=3)


def check_refused_or_sound(payload):
    """An announcement is an agreement whose every length is known, or one printable line; in bounded time."""
    start = time.monotonic()
    try:
        agreement = Agreement.from_bytes(payload)
    except UserError as error:
        assert str(error).isprintable() and str(error)
    else:
        assert agreement.lengths.client_bundle_bytes > 0 and agreement.lengths.set_up_bytes > 0
    assert time.monotonic() - start < SECONDS


def announcement(which, changes):
    told = TOLD[which]
    for change in changes:
        paths = list(places(told))
        if paths:
            told = altered(told, paths, *change)
    return json.dumps(told).encode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(TOLD) - 1), alterations)
def test_an_altered_announcement_is_refused_in_one_line_or_sound(which, changes):
    check_refused_or_sound(announcement(which, changes))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(payload):
    check_refused_or_sound(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON, st.sampled_from(["architecture", "policy", None]))
def test_any_json_is_refused_in_one_line(value, part):
    check_refused_or_sound(json.dumps(value if part is None else {**TOLD[0], part: value}).encode())


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Altering:
    """A connection that alters one of the pieces which are sent through it."""

    def __init__(self, end, generator):
        self._end, self._random, self._left = end, generator, generator.randrange(24)

    def setsockopt(self, *_):
        """A socket pair has no TCP options; the channel sets one."""

    def sendall(self, data):
        self._left -= 1
        self._end.sendall(self._altered(bytes(data)) if self._left == -1 else data)

    def _altered(self, data):
        choose, place = self._random.randrange(6), self._random.randrange(len(data) + 1)
        if choose == 0 and data:
            place %= len(data)
            return data[:place] + bytes([data[place] ^ 1 << self._random.randrange(8)]) + data[place + 1 :]
        noise = self._random.randbytes(self._random.choice([1, 10, 1000, 100_000]))
        return [
            data + data,
            b"",
            data[:place],
            data[:place] + noise + data[place:],
            noise,
            self._random.randbytes(len(data)),
        ][choose]

    def __getattr__(self, name):
        return getattr(self._end, name)


def altered_session(model, seed):
    """One session in which a party's stream is altered once: nothing but an error of one line, or outputs."""
    generator = random.Random(seed)
    ends = socket.socketpair()
    side = generator.randrange(2)
    wrapped = [
        Altering(end, generator) if index == side else Altering(end, random.Random(0)) for index, end in enumerate(ends)
    ]
    wrapped[1 - side]._left = -2
    server = threading.Thread(target=serve, args=(model, Channel(wrapped[0], TIMEOUT, bounds=STRANGER)))
    server.start()
    channel = Channel(wrapped[1], TIMEOUT)
    try:
        client = Client(channel)
        outputs = client.infer(client.prepare(), np.zeros((3, 8, 8), np.int64))
        assert outputs.shape == (5,)
        client.close()
    except UserError as error:
        assert str(error).isprintable()
        channel.fail(str(error))
    server.join(timeout=60 * TIMEOUT)
    for end in ends:
        end.close()
    assert not server.is_alive(), f"the server hangs: seed {seed}"


def run_sessions(count, first, caplog):
    """Sessions of circuits and of lookups in turns."""
    models = Model(NETWORK, POLICY), Model(NETWORK, LOOKED_UP)
    with caplog.at_level(logging.ERROR), ThreadPoolExecutor(AT_ONCE) as pool:
        numbers = range(first, first + count)
        for future in [pool.submit(altered_session, models[number % 2], number) for number in numbers]:
            future.result(timeout=600)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_altered_streams_end_sessions_in_one_line(caplog):
    run_sessions(24, 0, caplog)


@pytest.mark.slow
def test_thousands_of_altered_announcements(caplog):
    before, generator = resident(), random.Random(7)
    for _ in range(ANNOUNCEMENTS):
        changes = [
            (generator.choice(CHOICES), *(generator.randrange(1 << 16) for _ in range(3)))
            for _ in range(generator.randrange(1, 4))
        ]
        check_refused_or_sound(announcement(generator.randrange(len(TOLD)), changes))
    assert resident() - before < GROWTH_BYTES


@pytest.mark.slow
def test_thousands_of_altered_sessions(caplog):
    before = resident()
    run_sessions(SESSIONS, 1000, caplog)
    assert resident() - before < GROWTH_BYTES
