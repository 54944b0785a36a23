"""Entities, feature views, streams, request fields and feature services: Feast objects at the top level.

``skewless.definitions`` has functions that make them: ``feature_view``, ``event_source``, ``windowed_view``,
``request_source`` and ``on_demand_view``.
"""
