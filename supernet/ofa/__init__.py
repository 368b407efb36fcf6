"""Doors for the files of the once-for-all reference project. Needs torch.

state_dicts  files of torch, read without running what they hold
weights      names of the reference's tensors, and its checkpoints to our weights
net_config   descriptions of its specialised nets to blocks
predictors   its accuracy predictors
importing    all of these to a bundle
"""
