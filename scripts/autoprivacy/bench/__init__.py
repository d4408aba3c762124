"""Benchmarks of the cryptographic kernels, each beside its target and a yardstick from another library."""
