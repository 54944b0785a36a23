"""Who is answered by which version of a model, and what servers counted of each."""
