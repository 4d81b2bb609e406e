"""The command line: `python -m dex_jax data describe | manifest | preview`."""

import argparse
import contextlib
import io
import sys
import warnings
from pathlib import Path

import jax

from dex_jax._checks import check_new_file, missing_extra, plain_text, whole_file

try:
    from PIL import Image

    from dex_jax.data import (
        NAMES,
        ReidData,
        describe,
        load,
        read_options,
        write_manifest,
    )
    from dex_jax.pipeline import IdentityBatches, augment, preview, train_batches
except ModuleNotFoundError as error:
    sys.exit(f"error: {missing_extra(error, 'data')}")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after the program's name; None takes the process's own.

    Returns:
        The exit status: 0, or 2 after bad input, whose message goes to stderr.
    """
    parser = argparse.ArgumentParser("python -m dex_jax")
    groups = parser.add_subparsers(dest="group", required=True)
    data = groups.add_parser("data", help="look at data sets, write manifests")
    commands = data.add_subparsers(dest="command", required=True)
    _add_describe(commands.add_parser("describe", help="count what a data set holds"))
    _add_manifest(
        commands.add_parser("manifest", help="write a manifest from file names")
    )
    _add_preview(commands.add_parser("preview", help="draw a training batch"))
    given = parser.parse_args(arguments)
    # A name that the terminal's encoding lacks shall not end the work.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        given.run(given)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(plain_text(f"error: {error}", lines=True), file=sys.stderr)
        return 2
    return 0


def _say(text: str) -> None:
    """Prints text in which nothing steers the terminal."""
    print(plain_text(text, lines=True))


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="replace the file if it is there"
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--root", help="where the set lies: folder or manifest")
    parser.add_argument("--data_dir", help="where it is built into ArrayRecord files")
    parser.add_argument("--synthetic_root", help="a simulation set to train on as well")
    parser.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        help="skip: leave absent and damaged images out and count them",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the set's loader, such as size=large",
    )


def _load(given: argparse.Namespace) -> ReidData:
    options = read_options(given.option, flags=vars(given))
    if given.on_bad_image is not None:
        options["on_bad_image"] = given.on_bad_image
    try:
        return load(
            given.name,
            root=given.root,
            data_dir=given.data_dir,
            synthetic_root=given.synthetic_root,
            **options,
        )
    except FileNotFoundError as error:
        flag = "--root"
        if given.synthetic_root and given.synthetic_root in str(error):
            flag = "--synthetic_root"
        raise FileNotFoundError(f"{error}; {flag} DIR says where it lies") from None


def _add_describe(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument(
        "--figure", type=_picture, help="also draw it: a .png, .pdf or .svg to write"
    )
    _add_force(parser)
    parser.set_defaults(run=_describe)


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"expected .png, .pdf or .svg, got {text}")
    return path


def _describe(given: argparse.Namespace) -> None:
    if given.figure is not None:
        check_new_file(given.figure, "--figure", replace=given.force)
    data = _load(given)
    _say(describe(data))
    if given.figure is not None:
        from dex_jax.report import save_data_figure  # matplotlib: only on use

        with whole_file(given.figure, replace=given.force) as partial:
            save_data_figure(data, partial)
        _say(f"\n{given.figure}: the same as a figure")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="searched for images")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    _add_force(parser)
    for split in ("train", "query", "gallery"):
        parser.add_argument(
            f"--{split}",
            metavar="REGEX",
            help="the paths of its images below the folder, with the named groups "
            "identity, camera, tracklet, domain",
        )
    parser.set_defaults(run=_manifest)


def _manifest(given: argparse.Namespace) -> None:
    words = {split: getattr(given, split) for split in ("train", "query", "gallery")}
    patterns = {split: word for split, word in words.items() if word is not None}
    if not patterns:
        raise ValueError("manifest: give at least one of --train, --query, --gallery")
    rows, others = write_manifest(
        given.folder, given.out, patterns=patterns, force=given.force, say=_say
    )
    _say(f"{given.out}: {rows:,} images; {others:,} match no pattern")


def _add_preview(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--ids_per_batch", type=int, default=8)
    parser.add_argument("--images_per_id", type=int, default=4)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    _add_force(parser)
    parser.set_defaults(run=_preview)


def _preview(given: argparse.Namespace) -> None:
    check_new_file(given.out, "--out", replace=given.force)
    data = _load(given)
    batches = IdentityBatches(
        data.train.identities,
        ids_per_batch=given.ids_per_batch,
        images_per_id=given.images_per_id,
        seed=given.seed,
    )
    size = given.image_size
    images = train_batches(data.train, batches, image_size=size, memory=0)
    with contextlib.closing(images):
        batch = next(images)
    seen = jax.jit(augment)(jax.random.key(given.seed), batch.images)
    picture = Image.fromarray(preview(seen, columns=given.images_per_id))
    with whole_file(given.out, replace=given.force) as partial:
        picture.save(partial)
    _say(f"{given.out}: one identity in each row, augmented as in training")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_, **__: (
        f"note: {plain_text(str(message), lines=True)}\n"
    )
    sys.exit(main())
