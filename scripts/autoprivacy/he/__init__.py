"""Homomorphic encryption: security, noise, parameters, ring arithmetic, ciphertexts, packings, selection."""
