"""Images and labels. Needs torch, Pillow and, for parquet files, pyarrow.

images   a set of images in memory, read from parquet files or class folders
splits   training, validation and test images are three different things
noise    noise images, the same everywhere, where any images will do
batches  batches of normalised images at a resolution, augmented for training
"""
