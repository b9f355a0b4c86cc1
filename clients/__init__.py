"""Clients of the API. Only the one for Python is a part of the service: `flask chat` uses it."""
