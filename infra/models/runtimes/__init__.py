"""Runtimes, which score a matrix with a model: one module each, without importing a training library."""
