"""Decision streams: accepted events are scored in the order of the log, and the decisions delivered to sinks."""
