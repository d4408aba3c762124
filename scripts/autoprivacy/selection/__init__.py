"""Parameter selection: predicted latency, secure sets, the schemes, and what each of their ideas is worth."""
