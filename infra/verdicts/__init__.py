"""What was last found: parity and freshness of each view."""
