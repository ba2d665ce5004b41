"""Data for lumbar spine MRI: vocabulary, geometry, DICOM, tables, crops and the synthetic spine.

Importing this package imports neither torch nor ultralytics.
"""

import os

# Read when these libraries are first imported, which no module does before this one. ONNX Runtime's packages
# (1.29 and later) report what runs on which machine to their maker, and leave an identifier at home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# ultralytics asks name servers whether it is online, reports trainings, and installs what it misses.
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "False")
os.environ.setdefault("YOLO_VERBOSE", "False")
