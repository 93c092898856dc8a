"""Editing: pictures changed, completed, inverted and interpolated by a bundle's network, and runs recorded."""
