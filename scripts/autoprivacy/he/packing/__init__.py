"""How the values of a linear layer are laid out in polynomials."""
