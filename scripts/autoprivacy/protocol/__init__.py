"""The DELPHI-style protocol: client and server as two programs, and their measurement."""

import os

# Before numpy is loaded: the matrix products of a party are small, and threads that OpenBLAS starts for them spend more
# than the products take on waiting, on the core that the other party may need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
