"""The pytest plugin: options that say which backend is on trial, in which tiers, and on which foreign cases."""
