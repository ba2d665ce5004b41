"""Results as DICOM objects: a structured report (SR) and a secondary capture (SC) per study."""
