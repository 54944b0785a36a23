"""Arithmetic of cores, memory, time and price for a size."""
