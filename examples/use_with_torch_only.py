"""Classify a picture with network.pt2, without pudnet_lib.

python use_with_torch_only.py network.pt2 picture.jpg
"""

import json
import sys

import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import to_tensor

files = {"pudnet.json": ""}
network = torch.export.load(sys.argv[1], extra_files=files).module()
facts = json.loads(files["pudnet.json"])
mode, side = {1: "L", 3: "RGB"}[facts["channels"]], (facts["image_size"], facts["image_size"])
picture = ImageOps.fit(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert(mode), side, Image.Resampling.BILINEAR)
chances = network(to_tensor(picture)[None]).detach().softmax(1)[0]  # (K,)
print(f"{facts['class_names'][int(chances.argmax())]} {100 * float(chances.max()):.1f} %")
