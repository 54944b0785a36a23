"""The plan: compute it from definitions, apply it, read the applied plan, and find the views that it needs."""
