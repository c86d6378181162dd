"""Pictures of every kind that turn up in folders, and files that are no pictures."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.decode import decode_image, to_square

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]], [[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)  # left red, right green


def saved(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_a_png_of_the_right_size_comes_back_pixel_for_pixel(tmp_path):
    array = decode_image(saved(tmp_path, Image.fromarray(RED_GREEN)), 2, 3)
    assert array.dtype == np.uint8
    assert array.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(array, RED_GREEN.transpose(2, 0, 1))


def test_gray_becomes_three_equal_channels_and_rgb_becomes_their_mean(tmp_path):
    gray = saved(tmp_path, Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8)), "gray.png")
    np.testing.assert_array_equal(decode_image(gray, 2, 3), np.array([[[0, 100], [200, 255]]] * 3))
    colour = saved(tmp_path, Image.fromarray(RED_GREEN), "colour.png")
    np.testing.assert_array_equal(decode_image(colour, 2, 1), [[[85, 85], [85, 85]]])  # 255 / 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_every_mode_of_a_white_picture_is_white(mode):
    white = {"I": 65535, "I;16": 65535, "F": 1.0}.get(mode)
    image = Image.new("RGB", (3, 3), "white").convert(mode) if white is None else Image.new(mode, (3, 3), white)
    assert to_square(image, 2, 3).min() >= 254
    assert to_square(image, 2, 1).shape == (1, 2, 2)


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(RED_GREEN).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_image(saved(tmp_path, image), 2, 3), RED_GREEN.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(tmp_path, mode):
    black = Image.new(mode, (2, 1), 0)  # black, transparent
    black.putpixel((0, 0), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    left, right = decode_image(saved(tmp_path, black.resize((4, 2), Image.Resampling.NEAREST)), 2, 1)[0, 0]
    assert (left, right) != (0, 0)
    array = to_square(black.crop((1, 0, 2, 1)), 1, 3)
    np.testing.assert_array_equal(array, np.full((3, 1, 1), 255))
    np.testing.assert_array_equal(to_square(black.crop((0, 0, 1, 1)), 1, 3), np.zeros((3, 1, 1)))


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")
    path = saved(tmp_path, image, "x.gif", transparency=0)
    assert decode_image(path, 2, 3).min() == 255


def test_sixteen_bit_is_scaled_to_eight(tmp_path):
    deep = Image.fromarray(np.array([[0, 257], [32896, 65535]], np.uint16))
    np.testing.assert_array_equal(decode_image(saved(tmp_path, deep), 2, 1), [[[0, 1], [128, 255]]])


@pytest.mark.parametrize(("top", "value", "expected"), [(1.0, 0.5, 128), (255.0, 100.0, 100), (65535.0, 257.0, 1)])
def test_floating_point_takes_the_scale_that_fits(tmp_path, top, value, expected):
    image = Image.fromarray(np.array([[0, value], [value, top]], np.float32))
    array = decode_image(saved(tmp_path, image, "x.tiff"), 2, 1)
    assert array[0, 0].tolist() == [0, expected]
    assert array[0, 1, 1] == 255


def test_floating_point_nan_is_refused():
    with pytest.raises(PudNetError, match="NaN"):
        to_square(Image.fromarray(np.full((2, 2), np.nan, np.float32)), 2, 1)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it: the left column becomes the top row
    path = saved(tmp_path, Image.fromarray(RED_GREEN), exif=exif)
    turned = decode_image(path, 2, 3)
    np.testing.assert_array_equal(turned[:, 0], [[255, 255], [0, 0], [0, 0]])
    np.testing.assert_array_equal(turned[:, 1], [[0, 0], [255, 255], [0, 0]])


def test_the_centre_is_cropped():
    strip = np.zeros((2, 6), np.uint8)
    strip[:, 2:4] = 200
    np.testing.assert_array_equal(to_square(Image.fromarray(strip), 2, 1), np.full((1, 2, 2), 200))


def test_shrinking_is_antialiased():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    shrunk = to_square(Image.fromarray(checks.astype(np.uint8)), 8, 1)
    assert abs(shrunk.astype(int) - 127).max() <= 8  # without antialiasing it would be 0 or 255


def test_a_large_jpeg_decoded_at_a_fraction_looks_like_the_whole_one(tmp_path):
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 512), (512, 1)).astype(np.uint8))
    path = saved(tmp_path, ramp, "x.jpg", quality=95)
    assert np.abs(decode_image(path, 16, 1).astype(int) - to_square(ramp, 16, 1)).max() <= 3


def test_only_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 240)]
    path = saved(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(path, 2, 1), np.full((1, 2, 2), 10))


def test_the_given_picture_is_not_changed():
    image = Image.fromarray(RED_GREEN)
    to_square(image, 1, 1)
    np.testing.assert_array_equal(np.asarray(image), RED_GREEN)


def test_truncated_files_are_named_with_the_remedy(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("cut.jpg", "cut.png"):
        path = saved(tmp_path, noise, name)
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(PudNetError, match=rf"{name} is damaged or truncated .*Repair or remove"):
            decode_image(path, 8, 3)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(PudNetError, match=r"notes.txt is not an image"):
        decode_image(tmp_path / "notes.txt", 8, 3)
    (tmp_path / "empty.png").touch()
    with pytest.raises(PudNetError, match=r"empty.png is empty"):
        decode_image(tmp_path / "empty.png", 8, 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PudNetError, match=r"nowhere.png is missing"):
        decode_image(tmp_path / "nowhere.png", 8, 3)


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused_unread(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(PudNetError, match=r"bomb.png is too large .*at most 90 million pixels"):
        decode_image(tmp_path / "bomb.png", 8, 3)


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_are_refused(channels):
    with pytest.raises(PudNetError, match=f"{channels} channels"):
        to_square(Image.new("L", (2, 2)), 2, channels)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(PudNetError, match="0 pixels"):
        to_square(Image.new("L", (2, 2)), 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(1, 40),
    channels=st.sampled_from((1, 3)),
    value=st.integers(0, 255),
)
def test_any_shape_keeps_a_flat_colour(width, height, size, channels, value):
    array = to_square(Image.new("L", (width, height), value), size, channels)
    np.testing.assert_array_equal(array, np.full((channels, size, size), value))
