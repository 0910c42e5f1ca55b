"""The command line: one file a command."""

import os

from clarep.engine.freed_memory import keep_freed_memory

# Before torch is imported: threads that spin long while they wait slow clarep down tenfold as soon
# as another program uses the processor; such as never do take a quarter longer where none does.
# (Measured: docs/solver.md.) A user's own setting stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

keep_freed_memory()
