"""Plots of trainings and of models in use: from plain values to SVG text."""
