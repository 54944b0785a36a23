"""The compiler: turns Feast objects into a feature plan."""
