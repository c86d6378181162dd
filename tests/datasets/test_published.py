"""Datasets in their authors' layouts, each on a tiny made-up copy in exactly that layout."""

import os

import pytest
from PIL import Image

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import load_images
from pudnet_lib.images.named import ANIMALS, scan_any


def picture(path, gray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (gray, gray, gray)).save(path, "JPEG", quality=100)


def relative(listing, root):
    return [os.path.relpath(listing.root / file, root).replace(os.sep, "/") for file in listing.files]


def tiny_imagenet(root):
    """wnids.txt out of order, words.txt with more synsets, boxes beside the images, val by annotation, bare test."""
    root.mkdir(parents=True)
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tEuropean fire salamander\n")
    for wnid, gray in (("n01", 50), ("n02", 200)):
        for i in range(3):
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", gray)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t7\t7\n")
    for i, (wnid, gray) in enumerate((("n02", 200), ("n01", 50))):
        picture(root / "val" / "images" / f"val_{i}.JPEG", gray)
        with (root / "val" / "val_annotations.txt").open("a") as annotations:
            annotations.write(f"val_{i}.JPEG\t{wnid}\t0\t0\t7\t7\n")
    picture(root / "test" / "images" / "test_0.JPEG", 9)
    return root


def cub(root):
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    rows = [(1, 1, 50, 1), (2, 1, 50, 0), (3, 2, 200, 0), (4, 2, 200, 1), (5, 2, 200, 1)]
    folders = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross"}
    lists = {"images.txt": "", "image_class_labels.txt": "", "train_test_split.txt": ""}
    for number, label, gray, training in rows:
        name = f"{folders[label]}/Bird_{number:04d}.jpg"
        picture(root / "images" / name, gray)
        lists["images.txt"] += f"{number} {name}\n"
        lists["image_class_labels.txt"] += f"{number} {label}\n"
        lists["train_test_split.txt"] += f"{number} {training}\n"
    for file, text in lists.items():
        (root / file).write_text(text)
    return root


def animals(root):
    (root / "raw-img").mkdir(parents=True)
    (root / "translate.py").write_text("translate = {}\n")
    for italian in ANIMALS:
        for i in range(5):
            picture(root / "raw-img" / italian / f"{i}.jpeg", 100)
    return root


def test_tiny_imagenet_takes_its_test_images_from_the_annotated_validation_folder(tmp_path):
    root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
    listing = scan_any(root)
    assert listing.class_names == ("goldfish", "European fire salamander")
    assert (~listing.tests).sum() == 6
    assert relative(listing, root)[6:] == ["val/images/val_1.JPEG", "val/images/val_0.JPEG"]
    assert listing.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]


def test_a_folder_around_a_published_layout_is_stepped_into(tmp_path):
    tiny_imagenet(tmp_path / "download" / "tiny-imagenet-200")
    (tmp_path / "download" / "__MACOSX").mkdir()
    listing = scan_any(tmp_path / "download")
    assert listing.class_names == ("goldfish", "European fire salamander")
    assert listing.tests.sum() == 2


def test_parts_whose_one_folder_names_no_class_are_unlabelled(tmp_path):
    """Tiny-ImageNet without its lists, as a zip of pictures has it."""
    root = tiny_imagenet(tmp_path / "t")
    (root / "wnids.txt").unlink()
    listing = scan_any(root)
    assert (listing.class_names, listing.tests, len(listing.files)) == (("n01", "n02"), None, 6)
    assert "test, val has no class folders: its pictures are unlabelled and not used." in listing.warnings


def test_one_folder_of_pictures_named_by_their_class_is_told(tmp_path):
    for name in ("Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"):
        picture(tmp_path / "pets" / "images" / f"{name}.jpg", 50)
    with pytest.raises(PudNetError, match=r"1 class \(images\).*begin with Abyssinian, beagle: make folders of those"):
        scan_any(tmp_path / "pets")


def test_two_classes_of_one_word_keep_names_of_their_own(tmp_path):
    root = tiny_imagenet(tmp_path / "t")
    (root / "words.txt").write_text("n01\tcrane, bird\nn02\tcrane, machine\n")
    assert scan_any(root).class_names == ("crane (n01)", "crane (n02)")


def test_tiny_imagenet_refuses_a_class_that_is_not_listed(tmp_path):
    root = tiny_imagenet(tmp_path / "t")
    (root / "wnids.txt").write_text("n02\n")
    with pytest.raises(PudNetError, match=r"the class 'n01' is not listed in wnids.txt"):
        scan_any(root)


def test_cub_is_joined_by_number(tmp_path):
    root = cub(tmp_path / "CUB_200_2011")
    listing = scan_any(root)
    assert listing.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert (~listing.tests).sum() == 3
    numbers = [int(path[-8:-4]) for path in relative(listing, root)]
    assert numbers == [1, 4, 5, 2, 3]
    assert listing.labels.tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("missing", ["classes.txt", "train_test_split.txt"])
def test_cub_without_one_of_its_lists_is_an_error(tmp_path, missing):
    root = cub(tmp_path / "CUB_200_2011")
    (root / missing).unlink()
    with pytest.raises(PudNetError, match=f"{missing} is missing; unpack the archive anew"):
        scan_any(root)


def test_cub_with_an_image_in_one_list_only_is_an_error(tmp_path):
    root = cub(tmp_path / "CUB_200_2011")
    (root / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(PudNetError, match=r"image 2 .* is in images.txt but not in the other lists"):
        scan_any(root)


@pytest.mark.parametrize("inner", [".", "raw-img"])
def test_animals_are_named_in_english(tmp_path, inner):
    listing = scan_any(animals(tmp_path / "animals10") / inner)
    assert listing.class_names == tuple(ANIMALS[c] for c in sorted(ANIMALS))
    assert listing.class_names[0] == "dog"
    assert listing.tests is None
    assert len(listing.files) == 50


def test_omniglot_takes_every_character_of_every_alphabet(tmp_path):
    root = tmp_path / "omniglot-py"
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tengwar")):
        for character in ("character01", "character02"):
            for i in range(5):
                picture(root / part / alphabet / character / f"{i}.png", 10)
    listing = scan_any(root)
    assert listing.class_names[0] == "Greek/character01"
    assert listing.class_names[3] == "Tengwar/character02"
    assert (listing.tests, len(listing.files)) == (None, 20)


@pytest.mark.parametrize(
    ("name", "make", "folder", "test_grays"),
    [("tiny-imagenet", tiny_imagenet, "tiny-imagenet-200", [50, 200]), ("cub200", cub, "CUB_200_2011", [50, 200])],
)
def test_they_load_by_name_from_the_data_folder(tmp_path, monkeypatch, name, make, folder, test_grays):
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PudNetError, match=rf"{name} is not in .*{folder}.*To get it: .*PUDNET_DATA"):
        load_images(name)
    make(tmp_path / "data" / folder)
    test = load_images(name, "test", size=4, progress=False)
    assert test.name == name
    assert "research only" in test.licence
    assert [int(image.float().mean().round()) for image in test.images] == pytest.approx(test_grays, abs=2)
