"""Comparisons with peers: results are checked equal first, then times and memory are written to RESULTS.md."""
