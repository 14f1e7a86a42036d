"""One SQLite file: cache, lineage, and what a search goes on from."""
