"""From a slice to what is seen on it: canonical scale, network, evidence, candidates."""
