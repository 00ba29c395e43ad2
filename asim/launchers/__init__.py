"""Adapters to what runs jobs. ``local`` is here; third parties add theirs by the entry point group ``asim.launchers``."""
