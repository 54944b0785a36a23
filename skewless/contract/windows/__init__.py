"""Windowed views: declared, measured, kept as states, merged and finalised; the same code on both sides."""
