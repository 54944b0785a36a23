"""Events from Kinesis streams, and messages to them."""
