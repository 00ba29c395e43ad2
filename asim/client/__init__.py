"""Clients of the database: tensors, datasets, lists, models and scripts, wire-compatible with SmartRedis."""
