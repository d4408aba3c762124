"""Transcripts of sessions and the residues in them."""

from autoprivacy.he.ring.bit_packing import packed_bytes, unpack_bits
from autoprivacy.protocol.channel import HEADER, Message
from support.protocol_sessions import NETWORK, POLICY, session

RUNS, MANY_RUNS = 6, 80  # the second for what has a handful of values in a run


def frames(stream):
    """The messages of a recorded stream: (type, payload)."""
    place = 0
    while place < len(stream):
        _, kind, length = HEADER.unpack_from(stream, place)
        place += HEADER.size + length
        yield Message(kind), bytes(stream[place - length : place])


def transcript(image, policy=POLICY, runs=RUNS, network=NETWORK):
    """Payloads by message of both parties over a session that asks for one image again and again."""
    with session(policy, network) as (client, ends):
        for _ in range(runs):
            client.infer(client.prepare(), image)
    payloads = {}
    for end in ends:
        for kind, payload in frames(end.sent):
            payloads.setdefault(kind, []).append(payload)
    return payloads


def residues(payload, bits, skip=0):
    count = (len(payload) - skip) * 8 // bits
    return unpack_bits(payload[skip : skip + packed_bytes(count, bits)], bits, count)
