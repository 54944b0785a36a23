"""Development tools that the Makefile runs; not part of the product."""
