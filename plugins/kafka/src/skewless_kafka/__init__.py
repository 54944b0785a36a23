"""Events from Kafka topics, and messages to them."""
