"""Decisions, pure: values and `now` in, a decision out. No socket, no clock, no log."""
