"""The processes of a project and their machine: heartbeats, priorities, logging, metrics and plugins."""
