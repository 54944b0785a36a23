"""Training a model on a matrix, one library per file."""
