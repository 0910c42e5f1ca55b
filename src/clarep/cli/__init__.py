"""The command line: one file a command."""

import os

# Before torch is imported: threads that spin while they wait slow clarep down tenfold as soon as
# another program uses the processor. A user's own setting stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
