"""Events and decisions as Avro and Protobuf, and events by JSON Schema, with schemas from a schema registry."""
