"""AutoPrivacy: homomorphic-encryption parameters, chosen per layer, for private neural-network inference."""
