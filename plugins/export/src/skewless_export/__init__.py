"""Trees of trained models as one table, and the programs and files that are written from it."""
