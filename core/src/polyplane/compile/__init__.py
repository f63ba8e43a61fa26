"""2. What it means on this node: selectors, resolve, lower, incremental."""
