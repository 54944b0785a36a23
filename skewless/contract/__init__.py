"""The contract: plans, specs, keys, rows, windows and errors, shared by training and serving."""
