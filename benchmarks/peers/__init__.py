"""Servers to be measured against; each is a program: ``python -m benchmarks.peers.NAME PORT ...``."""
