"""Many studies: one after the other, on processes, or on a Ray cluster, with the same bytes."""
