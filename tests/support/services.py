"""A server that listens on loopback for the length of a test."""

import contextlib
import socket
import threading
from functools import partial

from autoprivacy.protocol.endpoints import Quota, ServiceSettings, listen, serve_clients
from autoprivacy.protocol.server import Model, serve
from support.protocol_sessions import NETWORK, POLICY

MODEL = Model(NETWORK, POLICY)


@contextlib.contextmanager
def service(session=None, model=MODEL, **settings):
    """A server of a model on a free port; yields its address."""
    settings = ServiceSettings(**{"timeout": 60.0, **settings})
    with listen("127.0.0.1:0") as listener:
        pool = settings.bundles(model.agreement.lengths.server_bundle_bytes)
        quota = Quota(settings.images_per_client)
        serving = partial(serve, model, pool=pool, quota=quota) if session is None else session
        thread = threading.Thread(target=serve_clients, args=(listener, settings, serving), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
    thread.join(timeout=10)
    assert not thread.is_alive()
