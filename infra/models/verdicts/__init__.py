"""The last parity verdict and freshness of each view."""
