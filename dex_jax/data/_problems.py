"""All that is wrong with a data set, found in one pass and listed in one error."""

from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from dex_jax._checks import check_choice

SHOWN = 20
_LONGEST = 500  # letters of a word that are shown


def check_reading(on_bad_image: str, verify: object) -> None:
    """Checks the two options of every loader, which `dex_jax.data.load` explains.

    Raises:
        ValueError: another value.
    """
    check_choice(on_bad_image, "on_bad_image", ("error", "skip", "later"))
    if not isinstance(verify, bool):
        raise ValueError(f"verify: expected True or False, got {verify!r}")
    if verify and on_bad_image == "later":
        raise ValueError("verify: reads every image, on_bad_image='later' reads none")


def leaves_folder(name: str) -> bool:
    """Whether a path that a file lists would lead out of the folder it starts from."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root:
        return True
    return ".." in posix.parts or ".." in windows.parts


class Problems:
    """Collects what is wrong with the files of one data set.

    Args:
        subject: what is being read; begins the message.
    """

    def __init__(self, subject: str):
        self._subject = subject
        self._kinds: Counter[str] = Counter()
        self._lines: list[str] = []

    def add(
        self,
        kind: str,
        file: str | Path,
        *,
        line: int | None = None,
        column: str | None = None,
        value: str | None = None,
        expected: str = "",
    ) -> None:
        """Notes one problem; only the first 20 are kept in full."""
        self._kinds[kind] += 1
        if len(self._lines) < SHOWN:
            place = f"{file}" if line is None else f"{file}, line {line}"
            if column is not None:
                place += f", column {_short(column)}"
            shown = "" if value is None else f": {_short(value)}"
            wanted = f" (expected {expected})" if expected else ""
            self._lines.append(f"{place}: {kind}{shown}{wanted}")

    def __len__(self) -> int:
        return self._kinds.total()

    def check(self) -> None:
        """Ends the pass.

        Raises:
            ValueError: something was noted; lists the first 20 and counts by kind.
        """
        if not self._lines:
            return
        total = len(self)
        text = [f"{self._subject}: {total} problem{'s' if total > 1 else ''}"]
        text += [f"  {line}" for line in self._lines]
        if total > len(self._lines):
            counts = ", ".join(f"{n} x {kind}" for kind, n in self._kinds.items())
            text.append(f"  ... and {total - len(self._lines)} more; in all: {counts}")
        raise ValueError("\n".join(text))


def _short(word: str) -> str:
    return repr(word if len(word) <= _LONGEST else f"{word[:_LONGEST]}...")
