"""The processes of a project and their machine: heartbeats, priorities, metrics and plugins."""
