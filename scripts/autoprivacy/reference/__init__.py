"""The reference run kept in the repository: keeping one, setting others beside it, README.md's tables from it."""
