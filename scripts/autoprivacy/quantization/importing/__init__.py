"""Import of torch modules: tracing, and what each operation becomes in the float graph."""
