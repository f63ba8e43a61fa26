"""The file dataplane for polyplane."""
