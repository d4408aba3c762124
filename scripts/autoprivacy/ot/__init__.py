"""Oblivious transfer: base transfers on an elliptic curve and their extension by symmetric cryptography."""
