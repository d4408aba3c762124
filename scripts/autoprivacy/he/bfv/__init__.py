"""BFV ciphertexts between the two parties: encryption, flooding, replies, rotations, linear layers, triples."""
