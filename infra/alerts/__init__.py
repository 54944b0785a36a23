"""What somebody should be told, and how they are told."""
