"""``python -m pipeline`` is ``lumbar``."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
