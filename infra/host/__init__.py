"""The processes of a project on their machine: who runs, at which priority, what they log, what is plugged in."""
