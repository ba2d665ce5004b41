"""``lumbar train``: both stages on folds of a labelled data set, judged out of fold; final weights."""
