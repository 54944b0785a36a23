"""The demo on real flights, and the story of weeks with drift and faults."""
