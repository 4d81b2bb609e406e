"""Text for a screen."""

from dex_jax.runs._text import plain


def test_letters_stay_and_what_steers_a_screen_is_spelled_out():
    assert plain("a\nb\té 车 [b]") == "a\nb\té 车 [b]"
    assert plain("\x1b[2J\r\x07\u202e\ud800") == r"\x1b[2J\r\x07\u202e\ud800"
