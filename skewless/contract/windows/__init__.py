"""Windowed views: event inputs, states, tiles, merging and features; training and serving share this code."""
