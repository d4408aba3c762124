"""Cryptographic randomness: uniform bits from ChaCha20, and the Gaussians made of them."""
