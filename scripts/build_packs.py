"""Build the packs of images that ship inside the package: the same bytes every time, with the same numpy and zlib.

    python scripts/build_packs.py --fashion DIR --packs DIR     # folders of Fashion-MNIST's IDX files and of the packs
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
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "pudnet_lib" / "images" / "embedded"
TRAIN, TEST = 900, 200  # Fashion-MNIST's images a class
FONTS = 260  # images a glyph
FONT_GAP = 20  # fonts left out between training and test; see glyphs()
CAPITALS_AND_DIGITS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789"]
FASHION_NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
LICENCES = {
    "fashion": "MIT (Zalando SE)",
    "emoji": "Noto: Apache-2.0; Twemoji: CC-BY-4.0; Fluent: MIT",
    "glyphs": "Aenigma fonts (Brian Kent): free to redistribute and change with attribution",
}
CHANGES = {
    "fashion": f"{TRAIN} training and {TEST} test images a class, drawn at random; pixels unchanged (28 x 28)",
    "emoji": "rendered at 32 x 32 on white; classes: Unicode subgroups; identical drawings kept once; split by emoji",
    "glyphs": f"capitals and digits rendered at 32 x 32, {FONTS} fonts a character; split by font",
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
    """Emoji with their drawings; emoji that share a drawing count as one item, and the drawing is kept once."""
    z = np.load(folder / "emoji_free_32.npz", allow_pickle=False)
    x, labels, items = z["X"], z["y"], z["emoji"].copy()
    first: dict[bytes, int] = {}
    kept = []
    for i, drawing in enumerate(x):
        twin = first.setdefault(drawing.tobytes(), i)
        if twin == i:
            kept.append(i)
        else:
            items[np.isin(items, [items[i], items[twin]])] = min(items[i], items[twin])
    x, labels, items = x[kept], labels[kept], items[kept]
    # Each item counts for the class of its first drawing; every fifth item of a class goes to test, at least one.
    unique, where = np.unique(items, return_index=True)
    test = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        own = unique[labels[where] == c]
        test |= np.isin(items, own[4::5] if len(own) >= 5 else own[-1:])
    return pack(x.transpose(0, 3, 1, 2), labels, test, items, [str(n) for n in z["names"]])


def glyphs(folder: Path) -> dict[str, np.ndarray]:
    """Characters, split by font.

    The source holds no font's name, but lists every character's fonts in the same order, some missing here and there (a
    drawing that two characters of one font share sits within 16 places in both lists). So a character's last fonts
    are the test fonts, and a gap wider than that shift keeps a font on one side.
    """
    z = np.load(folder / "glyphs_aenigma_32.npz", allow_pickle=False)
    names = [str(n) for n in z["names"]]
    rng = np.random.default_rng(0)
    images, labels, test = [], [], []
    for c, name in enumerate(CAPITALS_AND_DIGITS):
        own = np.flatnonzero(z["y"] == names.index(name))
        border, count = round(0.78 * len(own)), FONTS // 5
        for ids, many, is_test in (
            (own[:border], FONTS - count, False),
            (own[border + FONT_GAP :], count, True),
        ):
            ids = np.sort(rng.permutation(ids)[:many])
            images.append(z["X"][ids])
            labels.append(np.full(len(ids), c))
            test.append(np.full(len(ids), is_test))
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
    """Compare the packs with the manifest's checksums."""
    manifest = json.loads((out / "manifest.json").read_text())
    wrong = [
        n for n, m in manifest.items() if hashlib.sha256((out / f"{n}.npz").read_bytes()).hexdigest() != m["sha256"]
    ]
    print(f"wrong checksum: {', '.join(wrong)}" if wrong else f"{len(manifest)} packs are as the manifest says")
    return 1 if wrong else 0


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


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
        write(options.out / f"{name}.npz", content)
        manifest[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "classes": len(arrays["class_names"]),
            "class_names": [str(n) for n in arrays["class_names"]],
            "size": int(arrays["images"].shape[2]),
            "channels": int(arrays["images"].shape[1]),
            "notice": f"NOTICE_{name}.txt",
            "train": int((arrays["test"] == 0).sum()),
            "test": int(arrays["test"].sum()),
            "licence": LICENCES[name],
            "changes": CHANGES[name],
        }
        print(f"{name}: {manifest[name]['train']} + {manifest[name]['test']} images, {len(content)} bytes")
    write(options.out / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
