"""The plan: computed from definitions, put in force, read again when it changed; which views it needs fed."""
