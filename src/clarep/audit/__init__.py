"""The teacher as a witness: which images go against their class's cue, and where the object is.

The room bears the name of what it does: called, `clarep.audit(teacher, data, folder)`, it is
`clarep.audit.audit_run.audit`.
"""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from clarep.audit.audit_run import audit

        return audit(*arguments, **named)


sys.modules[__name__].__class__ = _Room
