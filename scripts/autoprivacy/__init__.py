"""AutoPrivacy: homomorphic-encryption parameters, chosen per layer, for private neural-network inference."""

from autoprivacy.compiled import choose_cache

choose_cache()
