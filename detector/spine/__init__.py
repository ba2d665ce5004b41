"""From what was seen to the spine: one chain, its numbering, the points of every level, doubts."""
