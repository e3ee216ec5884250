"""COCO-format files: annotations, images and layouts, read and checked once for training and evaluation."""
