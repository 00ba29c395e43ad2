"""Databases that asim starts: real Redis servers with asim's engine in them."""
