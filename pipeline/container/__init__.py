"""The program as others start it in a container: command line, mercure module, MONAI-style application."""
