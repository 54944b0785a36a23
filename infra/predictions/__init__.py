"""The prediction log: what was asked, read, seen and answered."""
