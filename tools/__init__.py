"""What the Makefile runs on the locked requirements; no part of the product."""
