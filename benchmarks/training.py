"""What each training option is worth on the demo, over seeds.

python benchmarks/training.py --runs DIR                    train what is missing, tell
python benchmarks/training.py --runs DIR --table            the table so far
python benchmarks/training.py --runs DIR --recipes EMA GeM --seeds 0

Every run is a `train.py` of its own in a folder of its own. A run that is finished is
not made again, one that was stopped goes on, and all recipes get their first seed
before any gets its second, so that a table half made can be read.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
EPOCHS = 20  # a third of the demo's, its decay three times as fast
COMMON = (
    "--config=configs/demo.py",
    f"--config.epochs={EPOCHS}",
    "--config.optimizer.decay=0.18",
    f"--config.evaluation.every_epochs={EPOCHS}",
    "--config.run.checkpoint_minutes=1",
)
PAPER = "the paper's recipe"
RECIPES: dict[str, tuple[str, ...]] = {
    PAPER: (),
    "warm-up + cosine": (
        "--config.optimizer.schedule=cosine",
        "--config.optimizer.warmup_epochs=2",
    ),
    "EMA": ("--config.optimizer.average=0.99",),
    "soft margin": ("--config.loss.soft_margin=True",),
    "AdamW": ("--config.optimizer.name=adamw", "--config.optimizer.weight_decay=0.01"),
    "GeM": ("--config.model.pooling=gem",),
    "circle": ("--config.loss.triplet_weight=0", "--config.loss.circle_weight=0.1"),
    "ArcFace": ("--config.loss.arcface=True",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    for seed in () if options.table else options.seeds:
        for recipe in options.recipes:
            folder = place(options.runs, recipe, seed)
            if mean_ap(folder) is None:
                train(folder, recipe, seed)
    print(table(options.runs, options.seeds))


def place(runs: Path, recipe: str, seed: int) -> Path:
    word = "".join(c if c.isalnum() else "_" for c in recipe)
    return runs / f"{word}_{seed}"


def mean_ap(folder: Path) -> float | None:
    """Validation mAP after the last epoch; None while there is none."""
    path = folder / "validation.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    return float(rows[-1]["mean_ap"]) if rows else None


def train(folder: Path, recipe: str, seed: int) -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "train.py", *COMMON, *RECIPES[recipe]),
            *(f"--config.seed={seed}", f"--workdir={folder.absolute()}"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    score = mean_ap(folder)
    if done.returncode or score is None:
        sys.exit(f"{recipe}, seed {seed}:\n{done.stdout}")
    seconds = time.monotonic() - begin
    print(f"{recipe}, seed {seed}: mAP {100 * score:.1f}, {seconds:.0f} s", flush=True)


def table(runs: Path, seeds: list[int]) -> str:
    """One row a recipe: mAP of each seed, mean, standard deviation, gain."""
    lines = [
        f"| recipe | {' | '.join(f'seed {s}' for s in seeds)} | mean | spread | gain |",
        f"| --- |{' --- |' * (len(seeds) + 3)}",
    ]
    base = scores(runs, PAPER, seeds)
    for recipe in RECIPES:
        found = scores(runs, recipe, seeds)
        cells = [f"{found[s]:.1f}" if s in found else "" for s in seeds]
        both = [found[s] - base[s] for s in found if s in base]
        mean = f"{statistics.mean(found.values()):.1f}" if found else ""
        spread = f"{statistics.stdev(found.values()):.1f}" if len(found) > 1 else ""
        gain = f"{statistics.mean(both):+.1f}" if both and recipe != PAPER else ""
        lines.append(f"| {' | '.join([recipe, *cells, mean, spread, gain])} |")
    return "\n".join(lines)


def scores(runs: Path, recipe: str, seeds: list[int]) -> dict[int, float]:
    found = {seed: mean_ap(place(runs, recipe, seed)) for seed in seeds}
    return {seed: 100 * score for seed, score in found.items() if score is not None}


if __name__ == "__main__":
    main()
