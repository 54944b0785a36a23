"""Draws plots of evaluations and of served versions, as SVG text."""
