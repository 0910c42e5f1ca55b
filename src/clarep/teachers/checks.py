"""What a training's settings must hold, so that a bad one fails before anything is written."""

import math

from clarep.errors import UserError


def require(holds: bool, name: str, value: object, rule: str) -> None:
    """Raise UserError "`NAME=VALUE` RULE" unless `holds`; rule says what is wrong."""
    if not holds:
        raise UserError(f"`{name}={value}` {rule}")


def require_counts(settings: object, *names: str) -> None:
    """Raise UserError if one of these fields of `settings` is below 1."""
    for name in names:
        value = getattr(settings, name)
        require(value >= 1, name, value, "is below 1: give a whole number from 1 up")


def require_positive(settings: object, *names: str) -> None:
    """Raise UserError if one of these fields of `settings` is not a finite number above 0."""
    for name in names:
        value = getattr(settings, name)
        require(0 < value < math.inf, name, value, "is not a finite number above 0: give one")


def require_share(settings: object, *names: str) -> None:
    """Raise UserError if one of these fields of `settings` is outside [0, 1)."""
    for name in names:
        value = getattr(settings, name)
        require(0 <= value < 1, name, value, "is outside [0, 1): give a share such as 0.1")
