"""How good grades are: the official metric, figures of merit with intervals, plots."""
