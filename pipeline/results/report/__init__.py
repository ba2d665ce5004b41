"""Reports for a browser: one file per study, and an index."""
