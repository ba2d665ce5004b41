"""Measurements: of quality, robustness, speed. What they print is theirs alone; see each module."""

from data_prep.base.workers import spare_threads

# As the command line does, and before numpy is imported.
spare_threads()
