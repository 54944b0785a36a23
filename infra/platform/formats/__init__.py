"""Formats of messages: JSON, Avro and Protobuf, with schemas from a schema registry."""
