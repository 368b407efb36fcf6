"""What can be built. Standard library and numpy only.

arch      one choice, a frozen value
blocks    one concrete block with its shapes, MACs and parameters
stage     a run of blocks with its choices; the only shape arithmetic
space     every choice of a supernet; sampling, mutation and crossover on rows of choice indices
costs     sums over blocks for whole populations
encoding  archs as vectors for predictors
presets   the named spaces
"""
