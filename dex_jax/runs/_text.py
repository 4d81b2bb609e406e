"""Text for a screen."""


def plain(text: str) -> str:
    r"""Text that may hold anything, such as a file's name, as a screen can show it.

    Example:
        >>> plain("a\x1b[2J\nb")
        'a\\x1b[2J\nb'
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in text
    )
