"""The tables of the RSNA 2024 challenge: read, checked, joined to images, decoded once."""
