"""Pictures: a montage per study, overlays per series."""
