"""An encoder that does nothing, for benches/process.rs: reads every batch as examples/encode.py does and answers with zeros.

    python3 process.py float32|stored [pipe]

With `pipe` it does not take batches from shared memory.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import encode  # noqa: E402

if "pipe" in sys.argv:
    encode.can_share = lambda path: False
encode.serve(lambda shape, _: [[0.0] * 8] * shape[0], identity="nothing", pixels=sys.argv[1])
