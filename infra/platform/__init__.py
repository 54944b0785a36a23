"""Platform: storage, processes, access, telemetry: what all other rooms use."""
