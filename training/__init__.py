"""From dataset to model package, and its promotion."""
