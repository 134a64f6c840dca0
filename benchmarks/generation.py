# SPDX-License-Identifier: Apache-2.0
"""What it takes to generate Verilog: seconds of a processor, memory, and how much text it is.

    python benchmarks/generation.py [--preset csp_h_32x32]

A busy machine does not matter much, since its own seconds are counted; a slow one does.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from csp_hw.config import PRESETS

#: What csp_h_32x32 should take at most, s.
WANTED = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="csp_h_32x32", choices=PRESETS)
    options = parser.parse_args()
    command = [sys.executable, "-m", "sim", "generate", "--preset", options.preset]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([*command, "-o", out], check=True, stdout=subprocess.DEVNULL)
        files = list(Path(out).glob("*.v"))
        size = sum(path.stat().st_size for path in files)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(
        f"{options.preset}: {seconds:.1f} s of a processor, {used.ru_maxrss / 1024:.0f} MiB, "
        f"{size / 1e6:.2f} MB in {len(files)} files"
    )
    if seconds > WANTED:
        print(f"error: more than {WANTED} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
