"""The trainers: meta-training, training from scratch, fine-tuning; losses and checkpoints."""
