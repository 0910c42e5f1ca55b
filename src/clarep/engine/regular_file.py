"""Regular files alone: a pipe that nobody writes to would be waited for without end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def require_regular(path: Path) -> None:
    """Raise OSError if there is no such file, or it is a pipe, device or socket."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        reason = "it is no regular file (a pipe, device or socket)"
        raise OSError(errno.EINVAL, reason, str(path))


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises OSError as `open` and `require_regular` do.
    """
    require_regular(path)
    return open(path, "rb")
