"""Beaver triples under encryption: what they decrypt to, their noise, and how their parameters are chosen."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.made_up_profile import LINK, PROFILE, made_up_profile
from support.real_noise import decrypt_with_noise
from support.squares import one_square

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.cipher import ClientCipher, ServerCipher, message_bytes
from autoprivacy.he.bfv.reply_bits import reply_bytes
from autoprivacy.he.bfv.triples import TripleClient, TripleLayout, TripleServer
from autoprivacy.he.packing.batching import slot_encoding
from autoprivacy.he.parameters.noise import decryption_error_rate, deployed_noise
from autoprivacy.he.parameters.parameter_set import Flooding, ParameterSet, ReplyBits, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.he.ring.primes import ntt_primes
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.plaintext_modulus import PlaintextRule
from autoprivacy.selection.schemes import darl, delphi, delphi_worst_case, layerwise
from autoprivacy.selection.triple_selection import triple_policy

P = 1032193  # 63 * 2^14 + 1
COMPOSITE = 40961 * 65537
FLOODED = Selection(PROFILE, LINK, Flooding("statistical"))
RANGES = {"first": (-3000, 3000)}


def architecture(count):
    """Of a network that squares so many values."""
    nodes = one_square().architecture.nodes
    square = replace(nodes[2], shape=(count, 1, 1))
    return replace(one_square().architecture, nodes=(*nodes[:2], square, nodes[3]))


def session(chosen, count, flooding):
    """Both parties and the client's cipher."""
    cipher = ClientCipher(chosen.parameters)
    client = TripleClient(count, chosen.parameters, cipher, chosen.reply_bits)
    server = TripleServer(count, chosen.parameters, flooding, chosen.target, chosen.reply_bits)
    return client, server, cipher


@pytest.mark.parametrize(
    ("p", "count", "kind"),
    [
        (P, 1, "statistical"),
        (P, 9000, "statistical"),
        (P, 100, "paper"),
        (P, 100, "none"),
        (COMPOSITE, 5000, "statistical"),
        (COMPOSITE, 5000, "none"),
    ],
)
def test_triples_decrypt_to_the_product_less_the_mask(p, count, kind):
    selection = replace(FLOODED, flooding=Flooding(kind))
    chosen = triple_policy(architecture(count), p, selection)
    assert chosen.parameters.plaintext_modulus == p
    assert len(chosen.parameters.plaintext_factors) == (2 if p == COMPOSITE else 0)
    client, server, cipher = session(chosen, count, selection.flooding)
    rng = np.random.default_rng(1)
    a, rho, m = (rng.integers(0, p, count, np.uint64) for _ in range(3))
    a[0], rho[0], m[0] = p - 1, p - 1, 0
    message = client.encrypt(a)
    reply = server.multiply(ServerCipher(chosen.parameters, cipher.public_key()), message, rho, m)
    expected = [(x * y - z) % p for x, y, z in zip(a.tolist(), rho.tolist(), m.tolist(), strict=True)]
    assert client.decrypt(reply).tolist() == expected
    assert len(message) == chosen.predicted["bytes_up"] and len(reply) == chosen.predicted["bytes_down"]


def test_the_noise_is_the_predicted_one():
    chosen = triple_policy(architecture(8192), P, replace(FLOODED, flooding=Flooding("none")))
    layout = TripleLayout.of(8192, chosen.parameters)
    _, server, cipher = session(chosen, 8192, Flooding("none"))
    rng = np.random.default_rng(2)
    a, rho = (rng.integers(0, P, 8192, np.uint64) for _ in range(2))
    encoding = slot_encoding(layout.degree, P)
    message = cipher.encrypt(encoding.encode(layout.slots(a)))
    reply = server.multiply(ServerCipher(chosen.parameters, cipher.public_key()), message, rho, a)
    _, noise = decrypt_with_noise(cipher, reply, layout.form(chosen.reply_bits))
    expected = deployed_noise(layout.noise, chosen.parameters, Flooding("none"), None, chosen.reply_bits).total
    assert noise.std() == pytest.approx(expected, rel=0.06)
    assert abs(noise.mean()) < 5 * expected / math.sqrt(noise.size)


def test_the_flood_is_2_to_the_kappa_times_what_depends_on_rho():
    chosen = triple_policy(architecture(10), P, FLOODED)
    server = TripleServer(10, chosen.parameters, FLOODED.flooding, chosen.target, chosen.reply_bits)
    assert server.noise.flood == pytest.approx(2.0**40 * server.noise.weighted)
    assert server.noise.weighted > P * math.sqrt(chosen.parameters.polynomial_degree / 12)


def test_the_set_is_secure_meets_the_target_and_no_smaller_q_does():
    chosen = triple_policy(architecture(10_000), P, FLOODED)
    parameters, layout = chosen.parameters, TripleLayout.of(10_000, chosen.parameters)
    n = parameters.polynomial_degree
    assert chosen.target == EXACT_TARGET and parameters.key_switching_prime is None
    assert chosen.predicted["security_bits"] >= 128 and chosen.predicted["decryption_error_rate"] <= 2.0**-40
    noise = deployed_noise(layout.noise, parameters, FLOODED.flooding, chosen.target, chosen.reply_bits)
    assert decryption_error_rate(parameters.q / (2 * P) / noise.total, n) <= 2.0**-40
    # half a bit less of q and nothing lost to the rounding of replies would still be too little
    alone = math.hypot(noise.flood, noise.weighted, noise.rerandomisation)
    smaller = [prime for prime in parameters.primes if prime.bit_length() < 27]
    assert decryption_error_rate(parameters.q / 2**1.5 / (2 * P) / alone, n) > 2.0**-40 or smaller
    counts = {name: chosen.predicted[name] for name in ("encrypt", "product", "sum", "encoding", "rotation", "reply")}
    size = -(-10_000 // n)
    assert counts == {"encrypt": size, "product": size, "sum": 0, "encoding": 4 * size, "rotation": 0, "reply": size}
    assert chosen.predicted["bytes_up"] == message_bytes(parameters, size)
    assert chosen.predicted["bytes_down"] == reply_bytes(n, size, size * n, chosen.reply_bits)


def test_wrong_counts_lengths_and_residues_are_refused():
    chosen = triple_policy(architecture(10), P, FLOODED)
    client, server, cipher = session(chosen, 10, FLOODED.flooding)
    values, keys = np.zeros(10, np.uint64), ServerCipher(chosen.parameters, cipher.public_key())
    with pytest.raises(ValueError, match=r"triples: got values of shape \(9,\); expected \(10,\)"):
        client.encrypt(values[:9])
    with pytest.raises(ValueError, match=f"residues modulo {P}: got {P}"):
        client.encrypt(values + np.uint64(P))
    message = client.encrypt(values)
    with pytest.raises(ValueError, match="message of 1 ciphertexts: expected"):
        server.multiply(keys, message[:-1], values, values)
    with pytest.raises(ValueError, match=f"residues modulo {P}: got {P}"):
        server.multiply(keys, message, values, values + np.uint64(P))
    with pytest.raises(ValueError, match="reply of 1 ciphertexts: expected"):
        client.decrypt(server.multiply(keys, message, values, values) + b"0")


@pytest.mark.parametrize("packing", ["coefficient", "slot"])
@pytest.mark.parametrize("scheme", ["delphi", "delphi-worst-case", "darl", "layerwise"])
def test_every_scheme_chooses_triples_for_a_network_that_squares(scheme, packing):
    network, selection = one_square(), replace(FLOODED, packing=packing)
    policy = {
        "delphi": lambda: delphi(network, "n", (-3000, 3000), selection),
        "delphi-worst-case": lambda: delphi_worst_case(network, "n", P, selection),
        "darl": lambda: darl(network, "n", P, selection),
        "layerwise": lambda: layerwise(network, "n", P, dict.fromkeys(network.layers, Target(2.0**-7)), selection),
    }[scheme]()
    triples = policy.triples
    assert triples.parameters.plaintext_modulus == policy.plaintext_modulus
    assert triples == triple_policy(network.architecture, policy.plaintext_modulus, selection)
    for key in ("bytes_up", "latency_seconds"):
        layers = sum(layer.predicted[key] for layer in policy.layers)
        assert policy.predicted[key] == pytest.approx(layers + triples.predicted[key])
    assert (not policy.approximate) == (scheme != "layerwise")
    assert Policy.from_json(policy.as_json(), "here") == policy
    assert policy.essence()["triples"]["predicted"] == {}


def test_a_network_without_squares_has_no_triples_and_old_policies_are_read():
    network = one_square()
    nodes = tuple(replace(node, squared=False) for node in network.architecture.nodes)
    plain = replace(network, architecture=replace(network.architecture, nodes=nodes))
    policy = darl(plain, "n", P, FLOODED)
    assert policy.triples is None and triple_policy(plain.architecture, P, FLOODED) is None
    value = policy.as_json()
    del value["triples"]
    assert Policy.from_json(value, "old") == policy


def test_squares_take_one_modulus_that_batches():
    network = one_square()
    with pytest.raises(UserError, match="plaintext moduli .* give all layers the largest"):
        moduli = {"first": P, "second": 786433}
        layerwise(network, "n", moduli, dict.fromkeys(network.layers, EXACT_TARGET), FLOODED)
    with pytest.raises(UserError, match="square: a function of 32 levels is looked up, .*17 high and"):
        darl(network, "n", 1 << 20, FLOODED)  # a power of two has no triples, and these shares no table
    few = Selection(made_up_profile((1024,)), LINK, Flooding("statistical"))
    with pytest.raises(UserError, match="squared activations: no secure set .* serves their triples"):
        triple_policy(network.architecture, P, few)


def test_the_plaintext_modulus_of_squares_is_a_prime_that_batches_at_every_degree():
    degrees = (2048, 4096, 8192)
    rule = PlaintextRule()
    moduli = rule.candidates(RANGES, "coefficient", degrees, squares=True)
    primes = [p for p in moduli if p & (p - 1)]
    assert all(p % (2 * max(degrees)) == 1 for p in primes)
    assert primes == rule.candidates(RANGES, "slot", degrees)[: len(primes)]
    powers = PlaintextRule(kind="power_of_two").candidates(RANGES, "coefficient", degrees, squares=True)
    assert powers == [p for p in moduli if p not in primes]  # for squares that are looked up
    with pytest.raises(UserError, match="a power of two in slot packing"):
        PlaintextRule(kind="power_of_two").candidates(RANGES, "slot", degrees, squares=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"primes": list(ntt_primes(1 << 60, 4096, 2))}}, "security"),
        ({"reply_bits": {"c0": 30, "c1": 20}}, "reply bits c0 = 30, c1 = 20"),
        ({"target": {"decryption_error_rate": 2}}, "decryption error rate 2"),
        ({"parameters": 3}, "not a policy: TypeError"),
    ],
)
def test_damaged_and_insecure_triples_are_refused_when_read(change, message):
    value = darl(one_square(), "n", P, FLOODED).as_json()
    triples = value["triples"]
    for key, entry in change.items():
        both = isinstance(entry, dict) and key == "parameters"
        triples[key] = {**triples[key], **entry} if both else entry
    triples["parameters"] = (
        triples["parameters"]
        if change.get("parameters") == 3
        else {
            **triples["parameters"],
            "polynomial_degree": 4096,
        }
    )
    with pytest.raises(UserError, match=message):
        Policy.from_json(value, "here")


def test_layouts_under_a_composite_modulus_count_every_factor():
    parameters = ParameterSet(COMPOSITE, 4096, ntt_primes(1 << 27, 4096, 3), plaintext_factors=(40961, 65537))
    layout = TripleLayout.of(5000, parameters)
    assert (layout.ciphertexts, layout.workload.input_ciphertexts, layout.workload.encodings) == (2, 4, 16)
    assert layout.noise.coefficients == 2 * 4096
    assert layout.noise.norm == pytest.approx(65537 * math.sqrt(4096 / 12))
    assert layout.form(ReplyBits(20, 30)).size == reply_bytes(4096, 2, 8192, ReplyBits(20, 30))
