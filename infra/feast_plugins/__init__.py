"""Feast's stores and compute engine on ours, named by class path in ``feature_store.yaml``."""
