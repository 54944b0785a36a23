"""The accepted log and the ledger of runs: what replay and training read."""
