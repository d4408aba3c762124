"""Homomorphic encryption: ring arithmetic, parameter sets and noise, packings, ciphers and linear layers, profiles."""
