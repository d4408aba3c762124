"""Data sets: CIFAR and others, found, verified and prepared as plain arrays."""
