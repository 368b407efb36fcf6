"""How good a subnet is. Needs torch.

statistics   BN statistics of a subnet, measured on images and written into it
calibration  the same without the data set: noise corrected by the statistics of anchor subnets
accuracy     top-1 with its interval
population   many archs, evaluated one by one into a file that can be resumed
"""
