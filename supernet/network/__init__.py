"""How a network computes. Needs torch.

depthwise    depthwise convolution with a fast weight gradient
layers       elastic layers: every call says which slice it runs
elastic_net  Supernet: `forward(x, arch)`, no active state
subnet       Subnet: plain torch modules of one arch
extract      supernet and arch to subnet, weights copied
checkpoint   weights in safetensors with the fingerprint of their space
"""
