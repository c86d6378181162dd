"""Grow the small zoo that ships with the kit: three packs, both initialisations, one file a part.

python scripts/build_zoo.py          # goes on where it was cut off; about three minutes on one core
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from pudnet_lib.files import save_tensors
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.studies.zoo import PARTS, SHIPPED, ZooConfig, load_zoo, read_tensors, zoo_name

ROWS = {"train": 120, "held-out": 60}


def pack(config: ZooConfig) -> str:
    """Merge a zoo's chunks into one file a part."""
    load_zoo(config, ROWS["train"], ROWS["held-out"])
    name = zoo_name(config)
    for part in PARTS:
        tensors = read_tensors(cache_folder() / "zoo" / name, part, ROWS[part])
        save_tensors(SHIPPED / name / f"{part}-{0:06d}-{ROWS[part]:06d}.safetensors", tensors, {"zoo": asdict(config)})
    return name


def main() -> None:
    torch.set_num_threads(1)
    for source in ("fashion", "emoji", "glyphs"):
        for initialisation in ("same", "different"):
            print(pack(ZooConfig(source, initialisation)), flush=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
