"""Loopback servers that behave as the outside services do, quirks and faults included."""
