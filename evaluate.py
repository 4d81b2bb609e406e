"""Evaluates descriptors: one chain of re-ranking steps, or a table of the paper.

    python evaluate.py --rerank table6
    python evaluate.py --rerank "dex(k=10),dba,diffusion" --workdir runs/a,runs/b
    python evaluate.py --rerank table6 --embeddings embeddings.npz --out reports/mine

Prints the table with the paper's figures beside it and writes a report: `report.json`,
a line a query as CSV, figures, and one HTML page to look at.
"""

import argparse
import dataclasses
import io
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax

try:
    from dex_jax import data, embeddings, evaluation, report, runs
except ModuleNotFoundError as error:
    sys.exit(
        f"evaluate.py: {error.name} is missing; pip install 'dex_jax[report]' brings it"
    )

MISTAKES = (
    ValueError,
    OSError,
    ModuleNotFoundError,
    runs.RunError,
    runs.CheckpointError,
)
# Flags that another one leaves without effect, and flags that belong to another one.
IDLE = {
    "score": "sweep explain export out brief",
    "embeddings": "workdir which split scales flip batch_size on_bad_image",
}
OWNERS = {
    "num_query": "embeddings",
    "images": "embeddings",
    "data": "embeddings or score",
    "root": "data",
    "option": "data",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the flags, checks all that can be checked, works, reports."""
    flags = read_flags(argv)
    # A name that the terminal's encoding lacks shall not end the work.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # A CPU computes in this thread, whose heap alone can keep the memory of a batch.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        evaluate(flags)
    except MISTAKES as error:
        message = report.plain_text(f"evaluate.py: {error}", lines=True)
        print(message, file=sys.stderr)
        return 2
    return 0


def say(text: str) -> None:
    """Prints a line; what came from files in it cannot steer the terminal."""
    print(report.plain_text(text))


def evaluate(flags: argparse.Namespace) -> None:
    """The story of one evaluation."""
    check_flags(flags)
    if flags.score:
        score(flags)
        return
    flags.rerank = "table6" if flags.rerank is None else flags.rerank
    table = evaluation.rows_for(flags.rerank)
    named = flags.rerank in evaluation.TABLES
    rerank = flags.rerank if named else table.rows[-1].pipeline
    sweep = flags.sweep
    grid = None if sweep is None else evaluation.read_sweep(sweep, rerank)
    source = open_source(flags)
    rows, notes = source.possible(table.rows)
    protocol = asked_protocol(flags, source.protocol)
    name = evaluation.report_name(rerank, flags.sweep)
    folder = flags.out or Path("reports") / source.name / name
    check_outputs(flags, folder)
    if source.labels().query_identities is not None:
        evaluation.check_scorable(source.labels(), protocol)
    say(protocol.describe())

    file = source.embeddings(None)
    if flags.export:
        export(flags, file, protocol)
    if grid is not None and file.query_identities is None:
        raise ValueError("--sweep: compares scores, which needs identities")
    explained = tuple(evaluation.find_query(file, word) for word in flags.explain)
    results = []
    cache = evaluation.shared_cache(file, rows)
    for row in rows:
        vectors = source.embeddings(row.scales)
        results.append(evaluation.run_row(vectors, row, protocol, cache=cache))
        say(results[-1].line())

    found = report.Report(
        title=f"{source.name}: {table.title}",
        file=file,
        protocol=protocol,
        results=results,
        images=source.images,
        facts=source.facts,
        notes=(
            *source.notes,
            *notes,
            *evaluation.tracklet_notes(file, rows),
            *evaluation.self_match_notes(file, protocol),
        ),
        explained=explained,
    )
    # Shown before anything else that may fail.
    found.print()
    if flags.submission:
        chain = rows[-1].pipeline
        say(evaluation.submit(flags.submission, file, chain, replace=flags.force))
    if grid is not None:
        found = dataclasses.replace(found, sweep=evaluation.sweep(file, grid, protocol))
        found.print_sweep()
    write(found, folder, flags)


def write(found: report.Report, folder: Path, flags: argparse.Namespace) -> None:
    """Writes the report and says where it lies."""
    start = time.perf_counter()
    report.write_report(found, folder, force=flags.force, brief=flags.brief)
    page = report.FIGURES_FILE if flags.brief else report.PAGE
    say(f"report in {time.perf_counter() - start:.0f} s: {folder / page}")


def check_outputs(flags: argparse.Namespace, folder: Path) -> None:
    """Refuses outputs that cannot be written, or would replace what nobody named."""
    named = {
        "--out": folder,
        "--export": flags.export,
        "--submission": flags.submission,
    }
    report.check_apart({name: path for name, path in named.items() if path})
    report.check_folder(folder, force=flags.force)


def export(
    flags: argparse.Namespace,
    file: embeddings.EmbeddingFile,
    protocol: data.Protocol,
) -> None:
    """Writes the embeddings file, with the protocol that it is scored by."""
    meta = {**file.meta, "protocol": dataclasses.asdict(protocol)}
    # Describing images takes long: another file may stand there by now.
    embeddings.save(
        dataclasses.replace(file, meta=meta), flags.export, replace=flags.force
    )
    say(f"wrote {flags.export}")


def score(flags: argparse.Namespace) -> None:
    """Scores somebody's ranked lists against labels alone."""
    order = evaluation.pull_in_order(flags.rerank)
    if flags.submission and order is None:
        raise ValueError("--submission: with --score, needs --rerank tracklet")
    if flags.data and not flags.embeddings:
        found = load_data(flags)
        labels, protocol = evaluation.data_labels(found), found.protocol
    else:
        source = open_source(flags)
        labels, protocol = source.labels(), source.protocol
    for line in evaluation.score_file(
        flags.score,
        labels,
        asked_protocol(flags, protocol),
        order=order,
        submission=flags.submission,
        replace=flags.force,
    ):
        say(line)


def asked_protocol(flags: argparse.Namespace, protocol: data.Protocol) -> data.Protocol:
    """The data set's protocol with what the flags ask for instead."""
    return evaluation.changed_protocol(
        protocol,
        remove_same_camera=flags.same_camera,
        top=flags.top,
        ap_denominator=flags.ap_denominator,
        leave_one_out=flags.leave_one_out or None,
    )


def open_source(flags: argparse.Namespace) -> evaluation.Source:
    """The descriptors: someone's file, or trained networks on a data set."""
    if not flags.embeddings:
        return evaluation.RunSource(
            flags.workdir or [runs.newest_run()],
            which=flags.which or "best",
            split=flags.split,
            scales=flags.scales,
            flip=flags.flip,
            method=flags.fuse,
            batch_size=flags.batch_size,
            on_bad_image=flags.on_bad_image,
        )
    labels = load_data(flags) if flags.data else None
    return evaluation.EmbeddingSource(
        flags.embeddings,
        num_query=flags.num_query,
        images=flags.images,
        method=flags.fuse,
        data=labels,
        leave_one_out=flags.leave_one_out,
    )


def load_data(flags: argparse.Namespace) -> data.ReidData:
    """The data set of `--data`."""
    options = data.read_options(flags.option, flags=("root",))
    if flags.root is not None and "verify" not in options:
        # Labels need no images.
        options.setdefault("on_bad_image", "later")
    try:
        return data.load(flags.data, root=flags.root, **options)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; --root DIR says where it lies") from None


def check_flags(flags: argparse.Namespace) -> None:
    """Refuses flags without effect and files that cannot be written."""
    for given, others in IDLE.items():
        for other in others.split() if getattr(flags, given) else ():
            if getattr(flags, other) not in (None, False, []):
                raise ValueError(f"--{other}: has no effect with --{given}")
    if flags.export:
        report.check_file(flags.export, "--export", suffix=".npz", force=flags.force)
    if flags.submission:
        report.check_file(flags.submission, "--submission", force=flags.force)
    if flags.out:
        check_outputs(flags, flags.out)
    for name, owners in OWNERS.items():
        given = any(getattr(flags, owner) for owner in owners.split(" or "))
        if getattr(flags, name) not in (None, []) and not given:
            raise ValueError(
                f"--{name}: belongs to --{owners.replace(' or ', ' or --')}, which is "
                "not given"
            )
    if flags.same_camera is not None:
        flags.same_camera = flags.same_camera == "remove"


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads and documents the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rerank", help="a chain, 'none', or table2 ... table6, the default")
    add("--workdir", type=_paths, help="DIR[,DIR...]; default: the newest under runs/")
    add("--which", choices=("best", "last"), help="checkpoint, default: best")
    splits = ("validation", "test")
    add("--split", choices=splits, help="default: the config's")
    add("--scales", type=_floats, help="default: the config's")
    add("--flip", action="store_true", help="average with the mirror image")
    methods = ("sum", "concat")
    add("--fuse", choices=methods, default="sum", help="eq. 4, or side by side")
    add("--batch_size", type=int, help="images at once; default: the config's")
    bad = "skip: leave bad images out and count them; default: the config's"
    add("--on_bad_image", choices=("error", "skip"), help=bad)
    add("--embeddings", type=_paths, help="FILE[,FILE...] from any framework")
    add("--num_query", type=int, help="queries in an embeddings file [Q + G, D]")
    add("--data", choices=data.NAMES, help="whose labels the embeddings files take")
    add("--root", help="where that data set lies")
    add("--option", action="append", default=[], help="KEY=VALUE of its loader")
    add("--images", type=Path, help="folder of the images an embeddings file names")
    rules = ("remove", "keep")
    add("--same_camera", choices=rules, help="default: the data set's rule")
    own = "leave each query's own image out; an array [N, D] is both sides"
    add("--leave_one_out", action="store_true", help=own)
    add("--top", type=int, help="cut the lists; default: the data set's rule")
    divisors = ("positives", "min")
    add("--ap_denominator", choices=divisors, help="default: the data set's")
    add("--out", type=Path, help="report folder; default: reports/<run>/<chain>")
    add(
        "--force",
        action="store_true",
        help="replace what --out, --export and --submission name",
    )
    add("--brief", action="store_true", help="report.json and CSV alone, no figures")
    add("--export", type=Path, help="also write the embeddings file")
    add("--submission", type=Path, help="write AI City's track2.txt of the last chain")
    only = "only score a track2.txt or a distance matrix .npy; labels are enough"
    add("--score", type=Path, help=only)
    add("--sweep", help="'diffusion.alpha=0.9,0.95; diffusion.gamma=1,3': a grid")
    add("--explain", type=_words, default=[], help="queries (rows or names) to explain")
    return parser.parse_args(argv)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"expected words between commas, got {text!r}")
    return words


def _paths(text: str) -> list[Path]:
    return [Path(word) for word in _words(text)]


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers, got {text!r}") from None


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_, **__: (
        f"note: {report.plain_text(str(message), lines=True)}\n"
    )
    sys.exit(main())
