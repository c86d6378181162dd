#!/usr/bin/env bash
# Notebook 04 on one machine with eight GPUs: prepare the images, meta-train, run the notebook.
# PUDNET_DATA holds imagenet/train and imagenet/val with one folder a WordNet id; PUDNET_CACHE is a fast local disk.
set -euo pipefail
pudnet plan --profile paper                       # hours, memory, disk; nothing runs yet
pudnet prepare imagenet --sizes 84                # once; cut it off and start it again as you like
torchrun --standalone --nproc-per-node 8 -m pudnet_lib imagenet-train --profile paper --compile inductor --channels-last
pudnet reproduce 04 --profile paper               # finds the trained models; trains from scratch, evaluates
