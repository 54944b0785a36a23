"""Commands on data: events, rows, entities, outcomes."""
