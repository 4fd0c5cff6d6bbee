"""Bringing data in: original files, imports, features made elsewhere, and whether what is there can be trusted."""
