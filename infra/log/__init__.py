"""The accepted log and the ledger of runs: the data that replay and training read."""
