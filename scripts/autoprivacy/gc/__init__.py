"""Garbled circuits: a circuit builder, the circuits of activations and outputs, half-gates."""
