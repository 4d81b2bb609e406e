"""Warnings that name the user's own line."""

import sys
import warnings


def warn_user(message: str) -> None:
    """Warns (UserWarning) at the nearest line that is outside of this package."""
    frame, level = sys._getframe(), 1
    package = __name__.partition(".")[0]
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] != package:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
