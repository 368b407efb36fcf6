"""The final choice of prioritized subnet sampling: per pool its best subnet with BN statistics of its own.

storage  the choices as a part of a bundle; reading them needs no torch
choice   pools of a run to choices: recalibration and evaluation
runtime  one set of weights that switches between the choices in place
"""
