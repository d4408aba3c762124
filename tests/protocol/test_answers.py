"""Clients that learn scores or the class alone: equal to the integer network, and nothing of the outputs beside it."""

from dataclasses import replace

import numpy as np
import pytest
from support.protocol_sessions import FLOODED, IMAGES, NETWORK, P_POWER, POLICY, SLOT_POLICY, session
from support.reference import reference_forward
from support.transcripts import frames

from autoprivacy.errors import UserError
from autoprivacy.protocol.answers import AnswerServer
from autoprivacy.protocol.channel import Message, ProtocolError
from autoprivacy.protocol.session import Agreement
from autoprivacy.quantization.outputs import shown
from autoprivacy.selection.schemes import darl

POLICIES = {"prime": POLICY, "power of two": darl(NETWORK, "residual", P_POWER, FLOODED), "slots": SLOT_POLICY}
MANY_RUNS = 60


@pytest.mark.parametrize("output", ["scores", "label"])
@pytest.mark.parametrize("name", POLICIES)
def test_a_client_learns_what_the_integer_network_says_and_no_more(name, output):
    policy = replace(POLICIES[name], output=output)
    p = policy.plaintext_modulus
    with session(policy, expected=policy) as (client, _):
        bundles = [client.prepare() for _ in IMAGES]
        for bundle, image in zip(bundles, IMAGES, strict=True):
            logits = reference_forward(NETWORK, image, p)
            assert np.array_equal(client.infer(bundle, image), shown(logits, output, p))


@pytest.mark.parametrize("output", ["scores", "label"])
def test_all_that_a_client_receives_last_is_uniform(output):
    """The masks of the answers vary over their whole range, whatever the answer; the tables and labels are random."""
    policy = replace(POLICY, output=output)
    with session(policy) as (client, (_, server)):
        answers = [client.infer(client.prepare(), IMAGES[0]) for _ in range(MANY_RUNS)]
        assert all(np.array_equal(answer, answers[0]) for answer in answers)
        function = client.agreement.answer
    last = [payload for kind, payload in frames(server.sent) if kind == Message.OUTPUT_SHARE]
    assert len(last) == MANY_RUNS and len(set(last)) >= min(MANY_RUNS // 2, function.answer_modulus)
    size = Agreement(NETWORK.architecture, policy).lengths.output_share
    assert {len(payload) for payload in last} == {size} and size < Agreement(NETWORK.architecture, POLICY).lengths.infer


def test_an_output_without_a_circuit_is_refused_by_both_sides():
    with pytest.raises(UserError, match="policy: output 'all'; expected one of logits, scores, label"):
        replace(POLICY, output="all")


def test_a_class_that_does_not_exist_is_told_in_one_line(monkeypatch):
    """Five classes take three bits: an odd server may answer with the sixth."""
    monkeypatch.setattr("autoprivacy.protocol.answers.AnswerServer.finish", finish_oddly(AnswerServer.finish))
    words = r"OUTPUT_SHARE is malformed: class [567]; expected one of 5"
    with session(replace(POLICY, output="label")) as (client, _), pytest.raises(ProtocolError, match=words):
        for move in range(8):
            finish_oddly.move = move
            client.infer(client.prepare(), IMAGES[0])


def test_a_bundle_without_an_answer_never_gives_the_logits(monkeypatch):
    prepare = AnswerServer.prepare

    def forgotten(self):
        prepare(self)

    monkeypatch.setattr(AnswerServer, "prepare", forgotten)
    with session(replace(POLICY, output="label")) as (client, (_, server)):
        with pytest.raises(ProtocolError, match="was prepared for no answer; prepare a new one"):
            client.infer(client.prepare(), IMAGES[0])
        assert Message.OUTPUT_SHARE not in [kind for kind, _ in frames(server.sent)]


def finish_oddly(finish):
    """The server's last step with masks that are moved."""

    def odd(self, kept, share):
        return finish(self, replace(kept, masks=(kept.masks + np.uint64(finish_oddly.move)) % np.uint64(8)), share)

    return odd
