"""Regular files alone: a pipe that nobody writes to would be waited for without end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises OSError as `open` does, and for a pipe, device or socket, without opening it.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        reason = "it is no regular file (a pipe, device or socket)"
        raise OSError(errno.EINVAL, reason, str(path))
    return open(path, "rb")
