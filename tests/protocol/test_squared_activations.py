"""Squared activations in the protocol: outputs, what crosses, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.made_up_profile import LINK, PROFILE
from support.protocol_sessions import payload_lengths, session, with_random_weights
from support.reference import reference_forward
from support.transcripts import residues, transcript

from autoprivacy.errors import UserError
from autoprivacy.he.bfv.leakage import layer_floods
from autoprivacy.he.bfv.triples import TripleLayout
from autoprivacy.he.parameters.parameter_set import Flooding, Target
from autoprivacy.he.parameters.policy import EXACT_TARGET, Policy
from autoprivacy.he.parameters.security import InsecureParameters
from autoprivacy.protocol.channel import Message
from autoprivacy.protocol.server import Model
from autoprivacy.protocol.session import Agreement
from autoprivacy.protocol.shares import masked_square, square_share
from autoprivacy.quantization.integer_network import LayerShape, Node
from autoprivacy.selection.conditions import Selection
from autoprivacy.selection.garbled_costs import garbling, with_garbling
from autoprivacy.selection.schemes import darl, delphi, layerwise

P, COMPOSITE = 1032193, 40961 * 65537
FLOODED = Selection(PROFILE, LINK, Flooding("statistical"))
SIGNIFICANCE = 1e-4


def squaring_network():
    """A square, a ReLU and a square that reads a residual; 8x8 images."""
    shapes = (
        LayerShape("first", "convolution", (3, 8, 8), 8, (3, 3), stride=2, padding=1, input_maximum=128),
        LayerShape("second", "convolution", (8, 4, 4), 8, (3, 3), padding=1, input_maximum=256),
        LayerShape("third", "convolution", (8, 4, 4), 4, (1, 1)),
        LayerShape("fc", "fully_connected", (64, 1, 1), 5, (1, 1), input_maximum=64**2),
    )
    nodes = (
        Node("image", "input", (), (3, 8, 8)),
        Node("first", "linear", ("image",), (8, 4, 4)),
        Node("square1", "activation", ("first",), (8, 4, 4), 9, -16, 15, squared=True),
        Node("second", "linear", ("square1",), (8, 4, 4)),
        Node("scaled", "scale", ("square1",), (8, 4, 4), factor=16),
        Node("sum", "add", ("second", "scaled"), (8, 4, 4)),
        Node("relu", "activation", ("sum",), (8, 4, 4), 8),
        Node("third", "linear", ("relu",), (4, 4, 4)),
        Node("square2", "activation", ("third",), (4, 4, 4), 9, -64, 63, squared=True),
        Node("flat", "flatten", ("square2",), (64, 1, 1)),
        Node("fc", "linear", ("flat",), (5, 1, 1)),
    )
    return with_random_weights(nodes, shapes, seed=5)


NETWORK = squaring_network()
POLICY = darl(NETWORK, "squaring", P, FLOODED)
IMAGES = np.random.default_rng(7).integers(-128, 128, (3, 3, 8, 8))
COUNT = 128 + 64  # values squared


@pytest.mark.parametrize("p", [13, P, COMPOSITE, (1 << 32) - 5])
def test_shares_of_the_square_add_up(p):
    rng = np.random.default_rng(p)
    x, rho, a, m, share = rng.integers(0, p, (5, 2, 3, 4))
    x[0, 0], rho[0, 0] = (0, 1, p - 1, p - 1), (p - 1, 0, p - 1, 1)
    h = np.array([(i * j - k) % p for i, j, k in zip(*(v.reshape(-1).tolist() for v in (a, rho, m)), strict=True)])
    masked = masked_square((x + rho) % p, a, h.reshape(x.shape), share, p)
    own = square_share(masked, rho, m, p)
    assert masked.shape == (2, *x.shape) and masked.min() >= 0 and masked.max() < p
    assert [(r + s) % p for r, s in zip(share.reshape(-1).tolist(), own.reshape(-1).tolist(), strict=True)] == [
        value * value % p for value in x.reshape(-1).tolist()
    ]


def test_all_inputs_of_a_small_modulus_leave_the_server_uniform_values():
    """For every x and rho the pairs (v, w) over all a, m and r' are each equally frequent."""
    p = 5
    a, m, share = (axis.reshape(-1) for axis in np.meshgrid(*[np.arange(p)] * 3))
    for x in range(p):
        for rho in range(p):
            u = np.full(a.shape, (x + rho) % p)
            v, w = masked_square(u, a, (a * rho - m) % p, share, p)
            counts = np.bincount((v * p + w) * p + m, minlength=p**3)  # the server knows m
            assert (counts == 1).all()


@pytest.mark.parametrize("kind", ["statistical", "none"])
@pytest.mark.parametrize(("packing", "p"), [("coefficient", P), ("slot", P), ("slot", COMPOSITE)])
def test_outputs_equal_the_integer_network_bit_for_bit(packing, p, kind):
    policy = darl(NETWORK, "squaring", p, Selection(PROFILE, LINK, Flooding(kind), packing))
    assert len(policy.triples.parameters.plaintext_factors) == (2 if p == COMPOSITE else 0)
    with session(policy, NETWORK) as (client, _):
        for image in IMAGES:
            assert np.array_equal(client.infer(client.prepare(), image), reference_forward(NETWORK, image, p))


LOOKED_UP = {
    "one modulus": dict.fromkeys(NETWORK.layers, 1 << 20),
    "several": {"first": 1 << 19, "second": 1 << 20, "third": 1 << 18, "fc": 1 << 26},
}


@pytest.mark.parametrize("ignored", [0, 3])
@pytest.mark.parametrize("moduli", LOOKED_UP)
def test_squares_are_looked_up_modulo_powers_of_two_without_triples(moduli, ignored):
    targets = dict.fromkeys(NETWORK.layers, replace(EXACT_TARGET, ignored_share_bits=ignored))
    policy = layerwise(NETWORK, "s", LOOKED_UP[moduli], targets, FLOODED)
    assert policy.triples is None and [layer.activation for layer in policy.layers] == [
        *("lookup", "garbled", "lookup", "garbled")
    ]
    residues_of = policy.residues(NETWORK.architecture)
    with session(policy, NETWORK) as (client, (up, down)):
        client._settle = lambda bundle: None  # it keeps shares that a client forgets
        for image in IMAGES[:2]:
            bundle = client.prepare()
            reads = {node.name: node.inputs[0] for node in NETWORK.architecture.activations}
            shares = {name: bundle.shares[source][residues_of.read[source]] for name, source in reads.items()}
            outputs = client.infer(bundle, image)
            assert np.array_equal(outputs, reference_forward(NETWORK, image, residues_of, shares))
        assert not payload_lengths(bytes(up.sent), Message.TRIPLE_FACTORS)
        assert not payload_lengths(bytes(down.sent), Message.TRIPLE_PRODUCTS)
        assert len(payload_lengths(bytes(up.sent), Message.LOOKUP_ANSWER)) == 4


def test_squares_of_circuits_alone_refuse_a_power_of_two():
    garbled = replace(FLOODED, activation="garbled")
    with pytest.raises(UserError, match="plaintext modulus 1048576 batches at no n"):
        darl(NETWORK, "s", 1 << 20, garbled)


@pytest.mark.parametrize("scheme", ["delphi", "layerwise"])
def test_other_schemes_give_the_integer_network_too(scheme):
    policy = {
        "delphi": lambda: delphi(NETWORK, "s", (-500_000, 500_000), FLOODED),
        "layerwise": lambda: layerwise(NETWORK, "s", P, dict.fromkeys(NETWORK.layers, EXACT_TARGET), FLOODED),
    }[scheme]()
    with session(policy, NETWORK) as (client, _):
        bundles = [client.prepare() for _ in range(2)]
        for index in (1, 0):
            outputs = client.infer(bundles[index], IMAGES[index])
            expected = reference_forward(NETWORK, IMAGES[index], policy.plaintext_modulus)
            assert np.array_equal(outputs, expected)


def test_shares_that_lose_bits_round_as_the_reference_with_the_clients_share():
    targets = {name: Target(2.0**-40, ignored_share_bits=3 if name == "third" else 0) for name in NETWORK.layers}
    policy = layerwise(NETWORK, "s", P, targets, FLOODED)
    with session(policy, NETWORK) as (client, _):
        client._settle = lambda bundle: None  # it keeps shares that a client forgets
        bundle = client.prepare()
        shares = {"square2": bundle.shares["third"][P]}
        outputs = client.infer(bundle, IMAGES[0])
    residues_of = policy.residues(NETWORK.architecture)
    assert np.array_equal(outputs, reference_forward(NETWORK, IMAGES[0], residues_of, shares))


def test_a_bundles_triples_are_fresh_fit_and_are_gone_after_the_image():
    model = Model(NETWORK, POLICY)
    with session(POLICY, NETWORK) as (client, _):
        first, second = client.prepare(), client.prepare()
        for name, shape in (("square1", (8, 4, 4)), ("square2", (4, 4, 4))):
            factors = [bundle.factors[name].residues(P, shape) for bundle in (first, second)]
            assert first.products[name].shape == shape and (factors[0] != factors[1]).mean() > 0.99
            assert (first.products[name] != second.products[name]).mean() > 0.99
        client.infer(first, IMAGES[0])
        assert not first.factors and not first.products and second.factors
    assert model.agreement.triple_count == COUNT


def test_bytes_are_those_predicted_and_the_ledger_has_them_as_encryption():
    policy = with_garbling(POLICY, NETWORK.architecture, replace(PROFILE, garbling=RATES), LINK)
    with session(policy, NETWORK) as (client, (up, down)):
        client.infer(client.prepare(), IMAGES[0])
        phases = {phase["phase"]: phase for phase in client.ledger.phases}
        sent, received = bytes(up.sent), bytes(down.sent)
    triples = policy.triples.predicted
    assert payload_lengths(sent, Message.TRIPLE_FACTORS) == [triples["bytes_up"]]
    assert payload_lengths(received, Message.TRIPLE_PRODUCTS) == [triples["bytes_down"]]
    layers = sum(layer.predicted["bytes_up"] for layer in policy.layers)
    assert policy.predicted["bytes_up"] == layers + triples["bytes_up"]
    own = [part for part in phases["offline"]["parts"] if (part["layer"], part["kind"]) == ("all", "he")]
    assert sum(part["bytes_sent"] for part in own) >= triples["bytes_up"]
    # two numbers of 20 bits for every value squared, one for the ReLU's
    assert payload_lengths(sent, Message.MASKED_ACTIVATION) == [2 * 128 * 20 // 8, 128 * 20 // 8, 2 * 64 * 20 // 8]
    costs = garbling(
        NETWORK.architecture, policy.residues(NETWORK.architecture), replace(PROFILE, garbling=RATES), LINK
    )
    crossed = sum(
        sum(payload_lengths(stream, kind))
        for stream, kinds in (
            (sent, (Message.OT_EXTENSION, Message.MASKED_ACTIVATION)),
            (received, (Message.GARBLED_TABLES, Message.GARBLER_LABELS)),
        )
        for kind in kinds
    )
    assert sum(cost["garbled_bytes"] for cost in costs.values()) == crossed


RATES = {
    name: dict.fromkeys(("median", "lower_quartile", "upper_quartile"), 1e-8)
    for name in ("garble", "evaluate", "project", "label", "transfer")
}


def test_what_crosses_for_squares_is_uniform_for_one_image():
    payloads = transcript(IMAGES[0], POLICY, runs=8, network=NETWORK)
    answers = [payload for payload in payloads[Message.MASKED_ACTIVATION] if len(payload) == 2 * 128 * 20 // 8]
    assert len(answers) == 8 and len(set(answers)) == 8
    values = np.stack([residues(answer, 20) for answer in answers])
    assert values.shape == (8, 256) and values.max() < P
    for part in (values[:, :128], values[:, 128:]):  # v, then w
        assert stats.kstest(part.reshape(-1) / P, "uniform").pvalue > SIGNIFICANCE
        steps = np.diff(part.astype(np.int64), axis=0).reshape(-1) % P
        assert stats.kstest(steps / P, "uniform").pvalue > SIGNIFICANCE
    for kind in (Message.TRIPLE_FACTORS, Message.TRIPLE_PRODUCTS):
        assert len(set(payloads[kind])) == 8
        counts = np.bincount(np.frombuffer(b"".join(payloads[kind]), np.uint8), minlength=256)
        assert len(payloads[kind][0]) > 1000 and counts.min() > 0


def test_the_flood_of_triples_counts_in_the_leakage():
    flood = layer_floods(NETWORK.architecture, POLICY)[-1]
    layout = TripleLayout.of(COUNT, POLICY.triples.parameters)
    assert (flood.name, flood.coefficients) == ("triples", layout.workload.reply_coefficients)
    assert flood.ratio == pytest.approx(2.0**-40)


def with_modulus(policy, p, **change):
    """The policy with another plaintext modulus everywhere, and other changes of the triples' set."""

    def changed(entry, **more):
        return replace(entry, parameters=replace(entry.parameters, plaintext_modulus=p, **more))

    layers = tuple(changed(layer) for layer in policy.layers)
    return replace(policy, layers=layers, triples=changed(policy.triples, **change))


OTHER = replace(POLICY, triples=with_modulus(POLICY, 786433).triples)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (replace(POLICY, triples=None), "darl of squaring: triples: none; expected some for square1, square2; choose"),
        (OTHER, f"triples: plaintext modulus 786433; expected that of the layers, {P}"),
        (with_modulus(POLICY, 65539), "triples: plaintext modulus 65539 does not batch at n = 4096"),
        (with_modulus(POLICY, 1 << 20), "triples: plaintext modulus 1048576 does not batch at n = 4096"),
        (with_modulus(POLICY, COMPOSITE), r"triples: .*plaintext factors none of p .*expected \(40961, 65537\)"),
    ],
)
def test_a_policy_whose_triples_do_not_fit_is_refused_by_both_sides(policy, message):
    with pytest.raises(UserError, match=message):
        Model(NETWORK, policy)
    with pytest.raises(UserError, match=message):
        Agreement.from_bytes(announced(NETWORK.architecture, policy))


def announced(architecture, policy):
    return json.dumps({"architecture": architecture.as_json(), "policy": policy.as_json()}).encode()


def test_triples_for_a_network_that_squares_nothing_are_refused():
    nodes = tuple(replace(node, squared=False) for node in NETWORK.architecture.nodes)
    architecture = replace(NETWORK.architecture, nodes=nodes)
    with pytest.raises(UserError, match="triples: given; expected none: nothing is squared"):
        Agreement(architecture, POLICY)


def test_insecure_triples_are_refused_by_both_sides(tmp_path):
    value = json.loads(announced(NETWORK.architecture, POLICY))
    value["policy"]["triples"]["parameters"]["polynomial_degree"] = 2048
    with pytest.raises(InsecureParameters, match="n = 2048"):
        Agreement.from_bytes(json.dumps(value).encode())
    (tmp_path / "policy.json").write_text(json.dumps(value["policy"]))
    with pytest.raises(InsecureParameters, match="n = 2048"):
        Policy.load(tmp_path / "policy.json")


def test_a_client_that_expects_other_triples_refuses():
    other = replace(POLICY, triples=replace(POLICY.triples, target=Target(2.0**-41)))
    wrong = "policy is not the expected one: triples.target.decryption_error_rate"
    with pytest.raises(UserError, match=wrong), session(POLICY, NETWORK, expected=other):
        pass
