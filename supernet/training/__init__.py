"""Weights for all subnets at once. Needs torch.

config    TrainConfig: every number, from a TOML file
schedule  the learning rate over a run
loop      train(): linear, readable top to bottom; a checkpoint every epoch
"""
