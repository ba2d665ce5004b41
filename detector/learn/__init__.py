"""Training of the detectors: labelled slices, views, synthesis, training and fitting of the numbering."""
