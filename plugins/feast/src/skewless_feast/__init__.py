"""Feast plugins: online store, offline store, provider and compute engine, named in ``feature_store.yaml``."""
