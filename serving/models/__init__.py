"""Which versions of which models answer."""
