"""Weights for all subnets at once, or for one of them. Needs torch.

config           TrainConfig: every number, from a TOML file
loop             train(): linear, readable top to bottom; a checkpoint every epoch
method           Method: which archs run in a step, and what they learn from
methods          one file per method, and the registry of them
passes           one step: archs forward and backward, gradients summed
teacher          plain networks whose soft labels others learn from
initial_weights  weights to start from
channel_sorting  the inner channels that matter most to the front
schedule         the learning rate over a run
ranks            the processes of a data-parallel run
checkpoint       all that the next epoch needs, in one file
log              CSV, TensorBoard's events and curves
smoke            a run shrunk to seconds that goes through all its parts
"""
