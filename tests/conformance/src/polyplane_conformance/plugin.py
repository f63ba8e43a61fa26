"""The pytest plugin behind all ways to run the suite."""
