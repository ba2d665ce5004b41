"""From files to studies: finding, bounded DICOM reading, slices in order, series typed."""
