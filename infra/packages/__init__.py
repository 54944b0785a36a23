"""Model packages: immutable folders with a hash of every file, and the aliases that point at them."""
