"""Open Inference Protocol v2 over HTTP: tensors, requests, replies and routes."""
