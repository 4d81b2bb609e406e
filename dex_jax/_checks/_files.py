"""Files: what may be read as one, and how a new one takes its place whole."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


def check_file(path: str | os.PathLike, what: str = "file") -> Path:
    """Returns the path of a plain file; opening anything else might never return.

    Args:
        path: where it lies; a link to a plain file is one.
        what: what the errors call it.

    Raises:
        FileNotFoundError: nothing there, or a link that leads nowhere.
        ValueError: a folder, a pipe, a socket or a device.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     check_file(file.name) == Path(file.name)
        True
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such {what}") from None
    except ValueError as error:  # a zero byte, or letters that no name can hold
        raise ValueError(f"{str(path)!r}: names no {what}: {error}") from None
    if stat.S_ISREG(mode):
        return path
    kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
    article = "an" if what[0] in "aeiou" else "a"
    raise ValueError(f"{path}: is a {kind}, expected {article} {what}")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, replace: bool = True) -> Iterator[Path]:
    """Lends a name beside `path`; what is written there takes its place at the end.

    Folders above it are made. After an error, a full disk among them, the old file
    stands as it was and nothing else is left. The new one has the rights that any
    program's new file would have.

    Args:
        path: where the finished file goes.
        replace: whether a file that is there may be replaced.

    Raises:
        FileExistsError: something is there, and `replace` is False.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "a.txt") as partial:
        ...         _ = partial.write_text("all of it")
        ...     (Path(folder) / "a.txt").read_text()
        'all of it'
    """
    path = Path(path)
    if not replace and os.path.lexists(path):
        raise FileExistsError(f"{path}: is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nobody can place a link of his own under a name that he cannot guess. The ending
    # stays, since some writers add the one that they expect.
    partial = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}{path.suffix}")
    try:
        yield partial
        if replace:
            os.replace(partial, path)
        else:
            _place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _place(partial: Path, path: Path) -> None:
    """Gives a file its name unless another came first."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(f"{path}: is there already") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(f"{path}: is there already") from None
        os.replace(partial, path)
