"""Grow the small zoo that ships with the kit: three packs, both initialisations, one file a part.

python scripts/build_zoo.py          # goes on where it was cut off; about three minutes on one core
"""

from __future__ import annotations

import torch

from pudnet_lib.images.cache import cache_folder
from pudnet_lib.studies.zoo import PARTS, SHIPPED, ZooConfig, load_zoo, read_tensors, write_rows, zoo_name

ROWS = {"train": 120, "held-out": 60}


def pack(config: ZooConfig) -> str:
    """Merge a zoo's chunks into one file a part."""
    load_zoo(config, ROWS["train"], ROWS["held-out"])
    name = zoo_name(config)
    for part in PARTS:
        tensors = read_tensors(cache_folder() / "zoo" / name, part, ROWS[part])
        write_rows(SHIPPED / name, part, 0, ROWS[part], tensors, config)
    return name


def main() -> None:
    torch.set_num_threads(1)
    for source in ("fashion", "emoji", "glyphs"):
        for initialisation in ("same", "different"):
            print(pack(ZooConfig(source, initialisation)), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
