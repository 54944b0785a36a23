"""Tests of the flights project."""
