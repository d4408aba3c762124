"""Measured seconds of homomorphic operations and of whole layers."""
