"""What synthetic patients can be asked for, and which seeds are for what. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

Size = Literal["small", "full"]
Appearance = Literal["physics", "randomised", "mixed"]
View = Literal["whole", "cut", "mixed"]
Transitional = Literal["natural", "never", "always"]
QuirkMode = Literal["none", "real", "all"]
HeaderVariant = Literal["rsna", "pacs"]
ScannerName = Literal["usual", "shifted", "unseen"]

# Seeds below are for training; then come those for choosing and calibrating, then those for reporting.
FIRST_CHOOSING_SEED = 100_000
FIRST_REPORTING_SEED = 200_000
