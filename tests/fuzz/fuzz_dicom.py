"""A coverage-guided fuzz target for the DICOM reader, with atheris. Optional: not part of the tests.

atheris 2.3.0 has a wheel for Linux and Python 3.11. It is in no requirements file: nothing else needs it.

    .venv/bin/python -m pip install atheris==2.3.0
    .venv/bin/python -m tests.fuzz.fuzz_dicom corpus/ -max_total_time=600 -rss_limit_mb=2048 -timeout=10

The corpus begins with a real MR slice in every transfer syntax that is read. What ends the run, with a file
``crash-…``, ``timeout-…`` or ``oom-…``: any exception but DicomRejected, a rejection without a reason code,
ten seconds for one file, two gigabytes. All options are those of libFuzzer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("needs atheris: pip install atheris==2.3.0")

with atheris.instrument_imports(include=["data_prep", "pydicom"]):
    from data_prep.problems import DicomRejected, Reason
    from data_prep.read.dicom_file import read_pixels, read_slices

from tests.hostile.mutations import base_dataset, every_coding


def main() -> None:
    """Run libFuzzer with the arguments of the command line."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        folders[0].mkdir(parents=True, exist_ok=True)
        for syntax, content in every_coding(base_dataset()).items():
            (folders[0] / f"seed-{syntax}").write_bytes(content)
    os.environ["RUST_BACKTRACE"] = "0"  # a panic of a decoder is caught, and its trace is of no use
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = Path(folder) / "1.dcm"

        def read(content: bytes) -> None:
            path.write_bytes(content)
            try:
                read_pixels(read_slices(path)[0])
            except DicomRejected as rejected:
                assert rejected.rejection.reason in Reason

        atheris.Setup(sys.argv, read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
