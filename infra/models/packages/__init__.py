"""Model packages: signed, immutable folders with a hash of every file, and aliases of versions."""
