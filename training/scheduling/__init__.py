"""Scheduling: the jobs of a project, their schedules, and the leader that runs them."""
