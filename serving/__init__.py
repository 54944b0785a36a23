"""Prediction server: HTTP and Open Inference Protocol APIs over one scoring core."""
