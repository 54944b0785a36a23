"""The outcome log: outcomes of predictions. A write is durable before the caller gets a reply."""
