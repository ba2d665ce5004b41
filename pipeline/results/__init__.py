"""What a run leaves behind: submission, reports, pictures, DICOM objects."""
