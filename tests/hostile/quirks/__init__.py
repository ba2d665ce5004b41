"""The oddities of real studies: pure functions from a stored study to a changed one, and what is expected."""
