"""Definitions: from Feast's objects to the plan, and the plan as it is applied and read."""
