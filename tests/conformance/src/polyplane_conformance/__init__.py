"""One set of scenarios for every dataplane."""
