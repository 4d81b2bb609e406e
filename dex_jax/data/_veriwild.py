"""VERI-Wild: three test sizes, one query for each identity."""

from pathlib import Path

from dex_jax._checks import check_choice
from dex_jax.data._decode import is_picture
from dex_jax.data._label_files import Line, read_lines, whole_number
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import UNKNOWN, Protocol, ReidData

SIZES = {"small": 3_000, "medium": 5_000, "large": 10_000}
GALLERY = {"small": 41_861, "medium": 69_389, "large": 138_517}
LISTS = "train_test_split"
ORIGIN = Origin(
    "veriwild",
    "VERI-Wild",
    marks=(LISTS,),
    pictures=("images",),
    below=("VERI-Wild", "VeRI-Wild"),
    obtain="Its authors give it out under their terms (non-commercial use).",
)


def load_veriwild(
    root: str | Path,
    *,
    size: str = "small",
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads VERI-Wild.

    Cameras are those of vehicle_info.txt (or a third column of newer lists): the
    protocol needs them. The published gallery holds the query images themselves; they
    stay, and the camera rule leaves them out of each ranking.

    Args:
        root: the folder with train_test_split and images, or one that holds it.
        size: "small" (3,000 identities), "medium" (5,000) or "large" (10,000).
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    check_choice(size, "size", tuple(SIZES))
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    cameras = _cameras(reader)
    identities = SIZES[size]
    sides = {
        "train": _read(reader, ("train_list", "train_list_start0"), cameras),
        "query": _read(
            reader, (f"test_{identities}_query", f"test_{identities}_id_query"), cameras
        ),
        "gallery": _read(
            reader, (f"test_{identities}", f"test_{identities}_id"), cameras
        ),
    }
    published = {
        "train images": 277_797,
        "train identities": 30_671,
        "query images": identities,
        "gallery images": GALLERY[size],
        "gallery identities": identities,
    }
    protocol = Protocol(f"VERI-Wild {size}", True)
    return reader.finish(sides, protocol, published=published)


def _read(
    reader: Reader, names: tuple[str, ...], cameras: dict[str, int]
) -> list[Listed]:
    paths = [reader.root / LISTS / f"{name}.txt" for name in names]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        raise FileNotFoundError(f"{paths[0]}: missing list of VERI-Wild")

    def parse(line: Line) -> Listed | None:
        # 99001/990001[.jpg] [label from 0] [camera]; the folder is the identity.
        name = line.fields[0]
        name = name if is_picture(name) else f"{name}.jpg"
        stem = name.rpartition(".")[0]
        identity = whole_number(stem.split("/")[0])
        if identity is None or stem.count("/") != 1 or len(line.fields) > 3:
            return None
        camera = cameras.get(stem, UNKNOWN)
        if len(line.fields) == 3:
            camera = reader.number(line.fields[2], "camera", path, line.number)
        if camera == UNKNOWN:
            kind = "camera unknown (vehicle_info.txt has it)"
            reader.problems.add(kind, path, line=line.number, value=stem)
        return Listed(f"images/{name}", identity, camera)

    return reader.read_list(
        path, parse, kind="not an image of VERI-Wild", expected="identity/image"
    )


def _cameras(reader: Reader) -> dict[str, int]:
    path = reader.root / LISTS / "vehicle_info.txt"
    cameras: dict[str, int] = {}
    if path.exists():
        for number, fields in read_lines(path, separator=";"):
            camera = whole_number(fields[1]) if len(fields) > 1 else None
            if camera is not None:
                name = fields[0]
                stem = name.rpartition(".")[0] if is_picture(name) else name
                cameras[stem] = camera
            elif number > 1:  # the first line may be a header
                kind = "camera is not a number"
                reader.problems.add(kind, path, line=number, value=";".join(fields))
    return cameras
