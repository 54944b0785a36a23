"""Events and decisions as Avro and Protobuf, with schemas from a schema registry."""
