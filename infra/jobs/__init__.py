"""Jobs that run by themselves: who may run them, what ran, and the processes that they run in."""
