"""The search spaces that come with Tailor, by family; `presets` names them.

cifar      ours, for 32×32 images
ofa        once-for-all: MobileNetV3, ProxylessNAS, ResNet50
slimmable  universally slimmable networks and PSS-Net: elastic widths
netaug     the tiny networks that network augmentation trains, as spaces of one arch
"""
