"""Open Inference Protocol v2 over gRPC: transport, messages and methods; imported only if ``grpc_port`` is set."""
