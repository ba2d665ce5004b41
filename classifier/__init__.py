"""Graders of the 25 targets of a study, the official metric and the level prior."""
