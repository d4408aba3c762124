"""What every step of the workflow shares: configuration, fingerprints of code, resumable state, provenance, logs."""
