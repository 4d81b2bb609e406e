import pytest

from dex_jax._checks import alike, read_label


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("1.0", "1"),
        ("-1.0", "-1"),
        ("-1", "-1"),
        (" -1 ", "-1"),
        ("-0.0", "0"),
        ("12.000 ", "12"),
        ("nan", ""),
        ("NaN", ""),
        ("<NA>", ""),
        ("NaT", ""),
        ("None", ""),
        ("  ", ""),
        ("", ""),
        # A word of the user's own stays as it is.
        ("1.5", "1.5"),
        ("007", "007"),
        ("007.0", "007.0"),
        ("1 ", "1 "),
        ("1e3", "1e3"),
        ("plate 10", "plate 10"),
        ("nancy", "nancy"),
        ("1" * 30 + ".0", "1" * 30 + ".0"),
    ],
)
def test_what_pandas_writes(text, word):
    assert read_label(text) == word


def test_words_that_may_be_one():
    assert alike(["1", "1 ", "0001", "2", "10", ""]) == "'0001', '1' and '1 '"
    assert alike(["bus  2", "bus 2"]) == "'bus  2' and 'bus 2'"
    assert alike(["-1", "-01", "0", "00"]) == "'-01' and '-1'; '0' and '00'"
    assert alike(["1", "10", "100", "c1", "c01", "a b", "ab"]) == ""
    many = [f"{zeros}{n}" for n in range(1, 9) for zeros in ("", "0")]
    assert alike(many).endswith("'05' and '5'; 3 more")
