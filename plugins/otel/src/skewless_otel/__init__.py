"""OpenTelemetry: traces and metrics over OTLP, switched on by the standard variables."""
