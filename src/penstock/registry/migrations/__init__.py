"""The registry's schema, one step a file; `database.py` runs what is missing when a registry is opened for writing."""
