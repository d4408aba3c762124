"""Garbled circuits: circuit builder, ReLU circuit, half-gates, oblivious transfer."""
