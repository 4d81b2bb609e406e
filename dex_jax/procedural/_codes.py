"""What a hit on a vehicle can show: numbers into its palette."""

from enum import IntEnum, auto

import numpy as np


class Code(IntEnum):
    """The painted things that every vehicle has."""

    BODY = 0
    ROOF = auto()
    LOWER = auto()
    GLASS = auto()
    CABIN = auto()
    RUBBER = auto()
    CHROME = auto()
    LAMP = auto()
    TAIL = auto()
    AMBER = auto()
    PLATE = auto()
    INK = auto()
    GRILLE = auto()
    STRIPE = auto()
    PANEL = auto()
    GAP = auto()
    TYRE = auto()
    RIM = auto()
    HUB = auto()
    SUNROOF = auto()
    ARCH = auto()
    BED = auto()
    WHITE_WALL = auto()


# Two codes for each sticker, then one for each surface of the mesh.
STICKER = len(Code)
SURFACE = STICKER + 12


def scatter(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """A hash of whole numbers, 0 to 255."""
    h = a.astype(np.uint32) * np.uint32(0x9E3779B1) + b.astype(np.uint32) * np.uint32(
        0x85EBCA77
    )
    h += np.uint32((seed % 65521 * 0xC2B2AE3D) & 0xFFFFFFFF)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3CF5)
    return (h >> np.uint32(24)).astype(np.int64)
