"""The outcome log: what came of predictions, durable before anybody is told so."""
