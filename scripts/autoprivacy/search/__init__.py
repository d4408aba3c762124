"""Decryption-error simulation, the search environment, the DDPG agent, finetuning."""
