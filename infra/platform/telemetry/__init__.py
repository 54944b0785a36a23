"""Log events, and the masking of secrets in them."""
