"""Glue for frameworks that need some; each module imports its framework, and nothing else imports the module."""
