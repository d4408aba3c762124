"""Arithmetic in Z_q[X]/(X^n + 1): primes, transforms, products, automorphisms, and the kernels they run on."""
