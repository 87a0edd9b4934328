"""Integrations with frameworks. Each module imports its framework, and nothing in the package imports the module."""
