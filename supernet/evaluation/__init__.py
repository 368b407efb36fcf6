"""How good a subnet is. Needs torch.

statistics   BN statistics of a subnet, measured on images and written into it
synthesis    images made up from a supernet, with nearly the data set's statistics in every subnet
calibration  statistics without the data set: synthesised images corrected by anchor subnets
accuracy     top-1 with its interval
population   many archs, evaluated one by one into a file that can be resumed
"""
