"""The prediction log: the inputs, feature reads, vectors and scores of served predictions."""
