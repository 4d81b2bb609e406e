"""Text that came from files, made safe to be shown to a person."""

import re

# Characters that steer what shows them or that nobody sees: controls (ESC begins a
# terminal's commands), marks of writing direction, which make a name read as another,
# line separators, halves of surrogate pairs, which no encoding takes, and invisible
# tags. The two joiners stay: words of several languages are spelled with them.
_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def plain_text(text: str, *, lines: bool = False) -> str:
    r"""Returns text in which nothing steers a terminal, a page or a file's encoding.

    Args:
        text: of any origin.
        lines: keep line ends; the text is a whole message and not a name in one.

    Returns:
        The text with such characters written out as Python escapes.

    Example:
        >>> print(plain_text("red\x1b[31m\ncar.jpg"))
        red\x1b[31m\ncar.jpg
        >>> plain_text("two\nlines", lines=True)
        'two\nlines'
    """
    if lines:
        return "\n".join(plain_text(line) for line in text.split("\n"))
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
