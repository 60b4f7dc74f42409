"""Shipped YAML files: data sets, models, methods, schedules and recipes, holding differences from the defaults."""
