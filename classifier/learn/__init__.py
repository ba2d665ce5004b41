"""Training of the graders: crops, batches, losses, the loop."""
