"""Detectors and graders as ONNX files with a manifest."""
