"""A process that loads a data set from its store, held in the middle of building it.

Arguments: the set, its root ("-" for none), the folder of the stores. What happens is
said on stdout, a word a line: "lock" before the store's lock is asked for, "build"
when building begins, "written" when the first image is written; then it waits for a
line on stdin. The last line is the source of the data.
"""

import fcntl
import sys
import warnings
from typing import Any

import tensorflow_datasets as tfds

from dex_jax.data import _store, load


def say(word: str) -> None:
    print(word, flush=True)


def before(word: str, function: Any) -> Any:
    def said(*args, **kwargs):
        say(word)
        return function(*args, **kwargs)

    return said


def hold_after_first(add_examples: Any) -> Any:
    def held(examples: Any) -> Any:
        yield next(examples)
        say("written")
        sys.stdin.readline()
        yield from examples

    def add(writer: Any, splits: Any) -> None:
        add_examples(writer, {k: held(examples) for k, examples in splits.items()})

    return add


def main(name: str, root: str, stores: str) -> None:
    writer: Any = tfds.core.SequentialWriter
    writer.add_examples = hold_after_first(writer.add_examples)
    fcntl.flock = before("lock", fcntl.flock)
    _store._build = before("build", _store._build)
    options: Any = {"root": root}
    if root == "-":
        options = {"size": "tiny", "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*instead of")
        say(load(name, data_dir=stores, **options).source)


if __name__ == "__main__":
    main(*sys.argv[1:])
