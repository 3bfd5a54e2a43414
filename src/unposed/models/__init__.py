"""One file per published system, the protocols they fulfil, and the registry of released checkpoints."""
