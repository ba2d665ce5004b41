"""The page on this machine where studies are dropped."""
