"""Trainers, which train a model on a matrix: one module per library."""
