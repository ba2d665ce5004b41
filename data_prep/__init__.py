"""Data for lumbar spine MRI: vocabulary, geometry, DICOM, tables, crops and the synthetic spine.

Importing this package imports neither torch nor ultralytics.
"""
