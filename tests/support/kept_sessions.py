"""Sessions of parties that keep their bundles on disk."""

import contextlib
from dataclasses import replace

from autoprivacy.protocol.kept_bundles import CLIENT, SERVER, BundleFolder, binding
from autoprivacy.protocol.sealed_files import Seal, SealedFolder
from autoprivacy.protocol.session import Agreement
from autoprivacy.selection.schemes import darl
from support.protocol_sessions import FLOODED, NETWORK, POLICY, session

LIMIT = 1 << 30
P = 1 << 18  # 11 and 12 bits are looked up


def with_lookups(policy, *layers):
    """The policy with the activations of some layers, of all where none is named, by lookup."""
    entries = (
        replace(layer, activation="lookup") if not layers or layer.name in layers else layer for layer in policy.layers
    )
    return replace(policy, layers=tuple(entries))


GARBLED = darl(NETWORK, "residual", P, FLOODED)
LOOKED_UP = with_lookups(GARBLED)


@contextlib.contextmanager
def folders(path, policy=POLICY, network=NETWORK, limit=LIMIT):
    """Both parties' bundles below `path`, the client's first."""
    agreement = Agreement(network.architecture, policy)
    seals = Seal(CLIENT, binding(agreement)), Seal(SERVER, binding(agreement, network))
    with contextlib.ExitStack() as stack:
        opened = []
        for name, seal in zip(("client", "server"), seals, strict=True):
            folder = SealedFolder(path / name)
            stack.callback(folder.close)
            opened.append(BundleFolder(folder, seal, limit))
        yield opened


@contextlib.contextmanager
def kept_session(path, policy=POLICY, network=NETWORK, limit=LIMIT):
    """A client that goes on with its bundles; yields it, both folders and both recorders."""
    with contextlib.ExitStack() as stack:
        own, others = stack.enter_context(folders(path, policy, network, limit))
        client, ends = stack.enter_context(session(policy, network, folder=others))
        client.resume(own)
        yield client, (own, others), ends
