"""Activations by lookup: tables read at additively shared places through preprocessed, shared one-hot vectors."""
