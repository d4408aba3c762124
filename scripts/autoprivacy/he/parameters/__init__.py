"""BFV parameter sets: their security, their noise, and the policy that lists one per layer."""
