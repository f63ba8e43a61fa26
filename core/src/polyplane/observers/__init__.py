"""Plugins that are told what happened."""
