"""Reaching archives: addresses, credentials, pace, retries; whatever an href names, its bytes or a named fault."""
