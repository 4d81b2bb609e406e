"""Files that are to be written: what is in their place is looked at before work."""

import os
import stat
from pathlib import Path


def check_new_file(
    path: str | os.PathLike, name: str, *, replace: bool = False
) -> Path:
    """Tells before any work whether a file may be written there.

    Args:
        path: the file.
        name: what errors call it.
        replace: whether a file that is there may be replaced.

    Returns:
        The path.

    Raises:
        FileExistsError: a file is there, and `replace` is False.
        IsADirectoryError: a folder is there.
        NotADirectoryError: it would lie below a file.
        PermissionError: its folder takes no new files.
        ValueError: a link, a pipe or a device is there, or it is no name of a file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     check_new_file(file.name, "--out", replace=True) == Path(file.name)
        True
    """
    path = Path(path)
    check_parents(path, name)
    mode = _mode(path, name)
    if mode is None:
        return path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{name}: {path} is a folder, expected a file's name")
    if not stat.S_ISREG(mode):
        kind = "link" if stat.S_ISLNK(mode) else "pipe, socket or device"
        raise ValueError(f"{name}: {path} is a {kind}, expected a file's name")
    if not replace:
        raise FileExistsError(
            f"{name}: {path} is there already; --force replaces it, another name "
            "leaves it"
        )
    return path


def check_parents(path: Path, name: str) -> None:
    """Looks at the nearest folder above a path that is to be made.

    Raises:
        NotADirectoryError: it is a file, or a link that leads nowhere.
        PermissionError: it takes no new files.
        ValueError: the path is no name of a file.
    """
    _mode(path, name)
    for parent in path.absolute().parents:
        mode = _mode(parent, name, follow=True)
        if mode is None and not parent.is_symlink():
            continue
        if mode is None or not stat.S_ISDIR(mode):
            kind = "file" if mode is not None else "broken link"
            raise NotADirectoryError(f"{name}: {path} lies below the {kind} {parent}")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise PermissionError(f"{name}: nothing may be written into {parent}")
        return


def _mode(path: Path, name: str, *, follow: bool = False) -> int | None:
    try:
        return (path.stat() if follow else path.lstat()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"{name}: {str(path)!r}: {reason}") from None
