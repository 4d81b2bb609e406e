"""`python -m dex_jax data`: what it prints, draws and refuses."""

import pytest
from PIL import Image

from dex_jax.__main__ import main
from dex_jax.data import load
from dex_jax.report import data_figure
from tests.data import fake_sets

pytestmark = pytest.mark.filterwarnings("ignore:.*instead of")


def test_the_page_is_drawn_as_it_is_written(tmp_path, capsys):
    root, out = fake_sets.cityflow(tmp_path), tmp_path / "deep" / "page.png"
    where = ["data", "describe", "cityflow", "--root", str(root), "--figure", str(out)]
    assert main(where) == 0
    assert f"{out}: the same as a figure" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.width > picture.height > 800
    figure = data_figure(load("cityflow", root=root))
    every = [axes for part in figure.subfigs for axes in part.axes]
    counts, images, tracklets, graph = every[:4]
    written = [text.get_text() for text in counts.texts]
    # Images, identities, cameras and tracklets of train, query and gallery.
    assert " ".join(written) == "69 6 3 18 4 0 0 0 9 0 0 3"
    words = tracklets.get_legend_handles_labels()[1]
    assert words == ["train: 1 to 4, median 4", "gallery: 1 to 5, median 3"]
    # The test side has no labels.
    assert images.get_legend_handles_labels()[1] == ["train: 9 to 12, median 12"]
    assert graph.get_title(loc="left") == "train: identities shared"
    assert [text.get_text() for text in graph.texts] == ["6"] * 9
    with pytest.raises(SystemExit):
        main([*where[:-1], "page.doc"])


def test_bad_images_are_left_out_by_a_flag(tmp_path, capsys):
    root = fake_sets.vric(tmp_path)
    (root / "train_images" / "a1.jpg").write_bytes(fake_sets.PIXELS[:300])
    where = ["data", "describe", "vric", "--root", str(root)]
    assert main([*where, "--on_bad_image=skip"]) == 0
    assert "note: 1 image(s) are left out" in capsys.readouterr().out
    (root / "train_images" / "a1.jpg").unlink()
    assert main([*where, "--on_bad_image=error"]) == 2
    assert "file not found: 'train_images/a1.jpg'" in capsys.readouterr().err


def test_the_command_line(tmp_path, capsys):
    names = [f"{i}_c{c}.jpg" for i in (1, 2) for c in (1, 2)]
    fake_sets.images(tmp_path / "cars", [*names, "extra.jpg"])
    table = tmp_path / "cars" / "table.csv"
    name = r"(?P<identity>\d)_c(?P<camera>\d)\.jpg"
    arguments = ["data", "manifest", str(tmp_path / "cars"), "--out", str(table)]
    assert main([*arguments, "--train", name]) == 0
    assert "4 images; 1 match no pattern" in capsys.readouterr().out
    assert main(["data", "describe", "manifest", "--root", str(table)]) == 0
    assert "images per identity   2 / 2 / 2" in capsys.readouterr().out
    out = tmp_path / "batch.png"
    sizes = ["--ids_per_batch=2", "--images_per_id=2", "--image_size=24"]
    where = ["data", "preview", "manifest", "--root", str(table), "--out", str(out)]
    assert main([*where, *sizes]) == 0
    with Image.open(out) as picture:
        assert picture.size == (48, 48)


def test_nothing_is_replaced_without_force(tmp_path, capsys):
    fake_sets.images(tmp_path / "cars", ["1.jpg", "2.jpg", "._1.jpg", "x\x1b[2J.jpg"])
    table, out = tmp_path / "cars" / "t.csv", tmp_path / "p.png"
    pattern = r"(?P<identity>\d)\.jpg"
    manifest = ["data", "manifest", str(tmp_path / "cars"), "--out", str(table)]
    manifest += ["--train", pattern]
    root = ["manifest", "--root", str(table)]
    figure = ["data", "describe", *root, "--figure", str(out)]
    sizes = ["--ids_per_batch=2", "--images_per_id=1", "--image_size=24"]
    drawn = ["data", "preview", *root, "--out", str(out), *sizes]
    for words, path in ((manifest, table), (figure, out), (drawn, out)):
        path.unlink(missing_ok=True)
        assert main(words) == 0
        said = capsys.readouterr().out
        path.write_text("mine") if path is out else None
        before = path.read_bytes()
        assert main(words) == 2
        assert "is there already; --force replaces it" in capsys.readouterr().err
        assert path.read_bytes() == before
        assert main([*words, "--force"]) == 0
        if path is table:
            assert "1 hidden images are left out, first '._1.jpg'" in said
            assert "2 images; 1 match no pattern" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars", "p.png"]
    capsys.readouterr()
    assert main([*manifest[:-1], "(?P<x\x1b[2J>)"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    assert main(["data", "describe", "vric", "--root", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
    assert main(["data", "describe", "vric", "--option", "size"]) == 2
    assert "--option: expected KEY=VALUE, got 'size'" in capsys.readouterr().err
    assert main(["data", "describe", "vric", "--option", "=size"]) == 2
    assert "--option: expected KEY=VALUE, got '=size'" in capsys.readouterr().err
    assert main(["data", "describe", "vric", "--option", "root=a"]) == 2
    assert "--option: root is a flag of its own, --root" in capsys.readouterr().err
    root = fake_sets.vric(tmp_path / "sets")
    below = root / "vric_train.txt" / "page.png"
    where = ["data", "describe", "vric", "--root", str(root), "--figure", str(below)]
    assert main(where) == 2
    assert "error: " in capsys.readouterr().err
    assert (
        main(["data", "manifest", str(tmp_path), "--out", str(tmp_path / "x.csv")]) == 2
    )
    assert "at least one of --train" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "describe", "nothing"])


def test_a_missing_data_set_names_the_flag(tmp_path, capsys):
    assert main(["data", "describe", "cityflow"]) == 2
    said = capsys.readouterr().err
    assert "cityflow lies on your disk" in said and "; --root DIR says where" in said
    nowhere = str(tmp_path / "nowhere")
    words = ["data", "describe", "procedural_vehicles", "--option", "size=tiny"]
    more = ["--option", "in_memory=True", "--option", "progress=False"]
    assert main([*words, *more, "--synthetic_root", nowhere]) == 2
    said = capsys.readouterr().err
    assert "nowhere: " in said and "; --synthetic_root DIR says where" in said
