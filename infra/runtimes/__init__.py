"""What computes a score from a matrix: one file per runtime, none of which imports a training library."""
