"""Classify a picture with network.onnx, without pudnet_lib.

python use_without_pudnet.py network.onnx picture.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

network = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = json.loads(network.get_modelmeta().custom_metadata_map["pudnet"])
mode, side = {1: "L", 3: "RGB"}[facts["channels"]], (facts["image_size"], facts["image_size"])
picture = ImageOps.fit(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert(mode), side, Image.Resampling.BILINEAR)
pixels = np.asarray(picture, np.float32).reshape(*side, -1).transpose(2, 0, 1)[None] / 255  # (1, C, H, W) in [0, 1]
logits = network.run(["logits"], {"images": pixels})[0][0]  # (K,)
chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(f"{facts['class_names'][logits.argmax()]} {100 * chances.max():.1f} %")
