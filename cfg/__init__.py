"""Shipped YAML files: data sets, models, methods, schedules and recipes. Only differences from the defaults stand here."""
