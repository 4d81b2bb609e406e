"""Evaluates descriptors: one chain of re-ranking steps, or a table of the paper.

    python evaluate.py --rerank table6
    python evaluate.py --rerank "dex(k=10),dba,diffusion" --workdir runs/a,runs/b
    python evaluate.py --rerank table6 --embeddings embeddings.npz --out reports/mine

Prints the table with the paper's figures beside it and writes a report: `report.json`,
a line a query as CSV, figures, and one HTML page to look at.
"""

import argparse
import dataclasses
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from dex_jax import data, report, rerank, runs
from dex_jax._sources import EmbeddingSource, RunSource, Source
from dex_jax.checkpoints import CheckpointError
from dex_jax.embeddings import EmbeddingFile, save


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the flags, checks all that can be checked, works, reports."""
    flags = read_flags(argv)
    # A CPU computes in this thread, whose heap alone can keep the memory of a batch.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        evaluate(flags)
    except (
        ValueError,
        OSError,
        ModuleNotFoundError,
        runs.RunError,
        CheckpointError,
    ) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(flags: argparse.Namespace) -> None:
    """The story of one evaluation."""
    check_flags(flags)
    asked = "table6" if flags.rerank is None else flags.rerank
    table = report.rows_for(asked)
    for row in table.rows:
        rerank.parse(row.chain)
    grid = None
    if flags.sweep is not None:
        grid = report.read_sweep(flags.sweep, chain=asked)
    source = open_source(flags)
    rows, notes = source.possible(table.rows)
    folder = Path(flags.out or Path("reports") / source.name)
    if not flags.score:
        report.check_folder(folder, force=flags.force)
    protocol = chosen_protocol(source.protocol, flags)
    if flags.score:
        # A submission ranks the one gallery it was written for.
        protocol = dataclasses.replace(protocol, draws=1)
    print(protocol.describe())

    file = source.embeddings(None)
    if flags.score:
        print_score(flags.score, file, protocol)
        return
    if flags.export:
        meta = {**file.meta, "protocol": dataclasses.asdict(protocol)}
        save(dataclasses.replace(file, meta=meta), flags.export)
        print(f"wrote {flags.export}")
    if grid is not None and file.query_identities is None:
        raise ValueError("--sweep: compares scores, which needs identities")
    explained = [find_query(file, word) for word in flags.explain]
    results = []
    graphs = report.shared_graphs(file, rows)
    for row in rows:
        vectors = source.embeddings(row.scales)
        results.append(report.run_row(vectors, row, protocol, graphs=graphs))
        print(progress_line(results[-1]))

    if flags.submission:
        write_submission(flags.submission, file, rows[-1].chain)
    swept = report.sweep(file, grid, protocol) if grid else None
    found = report.Report(
        title=f"{source.name}: {table.title}",
        file=file,
        protocol=protocol,
        results=results,
        images=source.images,
        facts=source.facts,
        notes=(*source.notes, *notes, *report.tracklet_notes(file, rows)),
        sweep=swept,
        explained=tuple(explained),
    )
    console = Console(width=max(Console().width, 110))
    console.print(found.screen())
    for line in found.lines():
        console.print(line)
    if swept is not None:
        console.print(swept.screen())
    start = time.perf_counter()
    written = report.write_report(found, folder, force=flags.force, brief=flags.brief)
    seconds = time.perf_counter() - start
    page = written / (report.FIGURES_FILE if flags.brief else report.PAGE)
    print(f"report in {seconds:.0f} s: {page}")


def open_source(flags: argparse.Namespace) -> Source:
    """The descriptors: someone's file, or trained networks on a data set."""
    if flags.embeddings:
        return EmbeddingSource(
            flags.embeddings,
            num_query=flags.num_query,
            images=flags.images,
            method=flags.fuse,
            data=labels_of(flags),
        )
    return RunSource(
        flags.workdir or [runs.newest_run()],
        which=flags.which or "best",
        split=flags.split,
        scales=flags.scales,
        flip=flags.flip,
        method=flags.fuse,
        batch_size=flags.batch_size,
        on_bad_image=flags.on_bad_image,
    )


def labels_of(flags: argparse.Namespace) -> data.ReidData | None:
    """The data set that names and labels the rows of embeddings files."""
    if flags.data is None:
        return None
    options = data.read_options(flags.option, flags=("root",))
    return data.load(flags.data, root=flags.root, **options)


def check_flags(flags: argparse.Namespace) -> None:
    """Refuses flags that another flag leaves without effect."""
    idle = {
        "score": (
            "rerank",
            "submission",
            "sweep",
            "explain",
            "export",
            "out",
            "force",
            "brief",
        ),
        "embeddings": (
            "workdir",
            "which",
            "split",
            "scales",
            "flip",
            "batch_size",
            "on_bad_image",
        ),
    }
    for given, others in idle.items():
        for other in others if getattr(flags, given) else ():
            if getattr(flags, other) not in (None, False, []):
                raise ValueError(f"--{other}: has no effect with --{given}")
    if flags.export and flags.export.suffix != ".npz":
        raise ValueError(
            f"--export: expected a name ending in .npz, got {flags.export}"
        )
    for name in ("submission", "export"):
        if path := getattr(flags, name):
            report.check_file(path, f"--{name}")
    belongs = {
        "num_query": "embeddings",
        "images": "embeddings",
        "data": "embeddings",
        "root": "data",
        "option": "data",
    }
    for name, owner in belongs.items():
        if getattr(flags, name) not in (None, []) and not getattr(flags, owner):
            raise ValueError(f"--{name}: belongs to --{owner}, which is not given")


def chosen_protocol(
    protocol: data.Protocol, flags: argparse.Namespace
) -> data.Protocol:
    """The data set's protocol, or what the flags ask for instead."""
    asked = {
        "remove_same_camera": None
        if flags.same_camera is None
        else flags.same_camera == "remove",
        "top": flags.top,
        "ap_denominator": flags.ap_denominator,
    }
    changed = {
        name: value
        for name, value in asked.items()
        if value is not None and value != getattr(protocol, name)
    }
    if not changed:
        return protocol
    return dataclasses.replace(
        protocol, name=f"{protocol.name}, changed by flags", **changed
    )


def print_score(path: Path, file: EmbeddingFile, protocol: data.Protocol) -> None:
    """Scores somebody's ranked lists against the labels."""
    ranking = report.read_ranking(
        path, queries=len(file.query_names), gallery=len(file.gallery_names)
    )
    scored = report.score(ranking, file, protocol)
    print(
        f"{path}: mAP {100 * scored.mean_ap:.2f}, CMC@1 {100 * scored.cmc[0]:.2f}, "
        f"CMC@5 {100 * scored.cmc[4]:.2f}, CMC@10 {100 * scored.cmc[9]:.2f}; mAP@100 "
        f"{100 * scored.map_at_100['positives']:.2f} over all positives, "
        f"{100 * scored.map_at_100['min']:.2f} over min(positives, 100)"
    )


def write_submission(path: Path, file: EmbeddingFile, chain: str) -> None:
    """Writes the last chain's lists, tracklets pulled in, as the challenge wants."""
    names = [step.partition("(")[0].strip() for step in chain.split(",")]
    steps = [] if chain == "none" else [chain]
    pulled = chain if "tracklet" in names else ",".join([*steps, "tracklet"])
    ids = np.asarray(report.rank_all(file, pulled)[1].ids)
    report.write_submission(path, ids, gallery=len(file.gallery_names))
    print(f"wrote {path}: {len(ids)} lines, chain {pulled}")


def find_query(file: EmbeddingFile, word: str) -> int:
    """A query by its row or its name."""
    if word in file.query_names:
        return file.query_names.index(word)
    if word.isdigit() and int(word) < len(file.query_names):
        return int(word)
    raise ValueError(
        f"--explain: expected a query's name or a row below {len(file.query_names)}, "
        f"got {word!r}"
    )


def progress_line(result: report.Result) -> str:
    """One line as soon as a row is done."""
    label = f"{result.row.label}: "
    if result.scored is None:
        return f"{label}{result.seconds:.1f} s"
    mean_ap, cmc = result.scored.mean_ap, result.scored.cmc
    spread = result.spread()
    over = "" if spread is None else f" (std {100 * spread[0]:.1f})"
    return (
        f"{label}mAP {100 * mean_ap:.1f}{over}, CMC@1 {100 * cmc[0]:.1f}, "
        f"CMC@5 {100 * cmc[4]:.1f} ({result.seconds:.1f} s)"
    )


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads and documents the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rerank", help="a chain, 'none', or table2 ... table6, the default")
    add("--workdir", type=_paths, help="DIR[,DIR...]; default: the newest under runs/")
    add("--which", choices=("best", "last"), help="checkpoint, default: best")
    add(
        "--split",
        choices=("validation", "test"),
        help="default: the config's",
    )
    add("--scales", type=_floats, help="default: the config's")
    add("--flip", action="store_true", help="average with the mirror image")
    add(
        "--fuse",
        choices=("sum", "concat"),
        default="sum",
        help="eq. 4, or side by side",
    )
    add("--batch_size", type=int, help="images at once; default: the config's")
    add(
        "--on_bad_image",
        choices=("error", "skip"),
        help="skip: leave bad images out and count them; default: the config's",
    )
    add("--embeddings", type=_paths, help="FILE[,FILE...] from any framework")
    add("--num_query", type=int, help="queries in an embeddings file [Q + G, D]")
    add("--data", choices=data.NAMES, help="whose labels the embeddings files take")
    add("--root", help="where that data set lies")
    add("--option", action="append", default=[], help="KEY=VALUE of its loader")
    add("--images", type=Path, help="folder of the images an embeddings file names")
    add(
        "--same_camera", choices=("remove", "keep"), help="default: the data set's rule"
    )
    add("--top", type=int, help="cut the lists; default: the data set's rule")
    add(
        "--ap_denominator", choices=("positives", "min"), help="default: the data set's"
    )
    add("--out", type=Path, help="report folder; default: reports/<run>")
    add("--force", action="store_true", help="replace a report that is there")
    add("--brief", action="store_true", help="report.json and CSV alone, no figures")
    add("--export", type=Path, help="also write the embeddings file")
    add("--submission", type=Path, help="write AI City's track2.txt of the last chain")
    add("--score", type=Path, help="only score a track2.txt or a distance matrix .npy")
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
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    sys.exit(main())
