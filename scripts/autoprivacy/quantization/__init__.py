"""From a trained float network to an 8-bit integer network with exact semantics."""
