"""The HTTP face: routes, replies, and the lane past the framework."""
