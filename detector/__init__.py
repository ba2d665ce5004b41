"""Stage 1: finds every intervertebral level in every series. Imports data_prep only."""
