"""Build the packs of images that ship inside the package; the output is the same bytes every time.

    python scripts/build_packs.py --fashion DIR --packs DIR     # DIR of Fashion-MNIST's IDX files; DIR of the source packs
    python scripts/build_packs.py --check                       # verify the checksums of what is in the package

Fashion-MNIST's files are those of its authors (also Debian's package ``dataset-fashion-mnist``). The source packs are
``emoji_free_32.npz`` (X, y, emoji, names) and ``glyphs_aenigma_32.npz`` (X, y, names).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "pudnet_lib" / "datasets" / "embedded"
TRAIN, TEST = 900, 200  # Fashion-MNIST's images a class
FONTS = 260  # images a glyph
CAPITALS_AND_DIGITS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789"]
FASHION_NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
LICENCES = {
    "fashion": "MIT (Zalando SE)",
    "emoji": "Noto: Apache-2.0; Twemoji: CC-BY-4.0; Fluent: MIT",
    "glyphs": "Aenigma fonts (Brian Kent): free to redistribute and change with attribution",
}
CHANGES = {
    "fashion": f"{TRAIN} training and {TEST} test images a class, drawn at random; pixels unchanged (28 x 28)",
    "emoji": "rendered at 32 x 32 on white; classes are Unicode subgroups; split by emoji",
    "glyphs": f"capitals and digits rendered at 32 x 32 from the fonts, at most {FONTS} fonts a character",
}


def idx(folder: Path, stem: str) -> np.ndarray:
    path = next(p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file())
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", dimensions, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def fashion(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images, labels, test = [], [], []
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        x, y = idx(folder, f"{part}-images-idx3-ubyte"), idx(folder, f"{part}-labels-idx1-ubyte")
        for c in range(10):
            ids = np.sort(rng.permutation(np.flatnonzero(y == c))[:count])
            images.append(x[ids])
            labels.append(np.full(count, c))
            test.append(np.full(count, part == "t10k"))
    x = np.concatenate(images)
    return pack(x[:, None], np.concatenate(labels), np.concatenate(test), np.arange(len(x)), FASHION_NAMES)


def emoji(folder: Path) -> dict[str, np.ndarray]:
    z = np.load(folder / "emoji_free_32.npz", allow_pickle=False)
    labels, items = z["y"], z["emoji"]
    test = np.zeros(len(labels), bool)
    for c in np.unique(labels):  # every fifth emoji of a class, at least one: an emoji's drawings stay together
        own = np.unique(items[labels == c])
        test |= (labels == c) & np.isin(items, own[4::5] if len(own) >= 5 else own[-1:])
    return pack(z["X"].transpose(0, 3, 1, 2), labels, test, items, [str(n) for n in z["names"]])


def glyphs(folder: Path) -> dict[str, np.ndarray]:
    z = np.load(folder / "glyphs_aenigma_32.npz", allow_pickle=False)
    names = [str(n) for n in z["names"]]
    rng = np.random.default_rng(0)
    images, labels, test = [], [], []
    for c, name in enumerate(CAPITALS_AND_DIGITS):
        ids = np.sort(rng.permutation(np.flatnonzero(z["y"] == names.index(name)))[:FONTS])
        images.append(z["X"][ids])
        labels.append(np.full(len(ids), c))
        test.append(np.arange(len(ids)) % 5 == 4)
    x = np.concatenate(images)
    return pack(x[:, None], np.concatenate(labels), np.concatenate(test), np.arange(len(x)), CAPITALS_AND_DIGITS)


def pack(x: np.ndarray, y: np.ndarray, test: np.ndarray, items: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {
        "images": np.ascontiguousarray(x, dtype=np.uint8),
        "labels": y.astype(np.uint8),
        "test": test.astype(np.uint8),
        "items": items.astype(np.int32),
        "class_names": np.array(names),
    }


def encode(arrays: dict[str, np.ndarray]) -> bytes:
    """Write a .npz whose bytes depend on the arrays alone (numpy's own writer stores the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def check(out: Path) -> int:
    manifest = json.loads((out / "manifest.json").read_text())
    wrong = [n for n, m in manifest.items() if hashlib.sha256((out / f"{n}.npz").read_bytes()).hexdigest() != m["sha256"]]
    print(f"wrong checksum: {', '.join(wrong)}" if wrong else f"{len(manifest)} packs are as the manifest says")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's four IDX files, gzipped or not")
    parser.add_argument("--packs", type=Path, help="folder of emoji_free_32.npz and glyphs_aenigma_32.npz")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check", action="store_true", help="verify checksums instead")
    options = parser.parse_args()
    if options.check:
        return check(options.out)
    if options.fashion is None or options.packs is None:
        parser.error("--fashion and --packs are needed to build")
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = {}
    made = {"fashion": fashion(options.fashion), "emoji": emoji(options.packs), "glyphs": glyphs(options.packs)}
    for name, arrays in made.items():
        content = encode(arrays)
        (options.out / f"{name}.npz").write_bytes(content)
        manifest[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "classes": len(arrays["class_names"]),
            "train": int((arrays["test"] == 0).sum()),
            "test": int(arrays["test"].sum()),
            "licence": LICENCES[name],
            "changes": CHANGES[name],
        }
        print(f"{name}: {manifest[name]}")
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
