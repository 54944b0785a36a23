"""Work on a project that is more than one step: each module is one kind, for command line and scheduler."""

BY_HAND = "requested by hand"  # cause of a run
