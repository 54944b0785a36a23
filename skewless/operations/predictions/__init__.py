"""Commands on predictions: lists, explanations, proofs."""
