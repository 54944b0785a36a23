"""Models: their packages, the libraries that score them, and what is known of their versions."""
