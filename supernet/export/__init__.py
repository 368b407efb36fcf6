"""A subnet as a verified ONNX file. Reading and verifying one needs no torch.

onnx       subnet to ONNX: the same weights, the same bytes
runtime    ONNX Runtime on the CPU
reference  images that every machine can make again
parity     ONNX Runtime against torch
manifest   what a deployment says of itself
folder     export, parity and manifest to a deployment folder, whole or not at all
verify     a deployment folder checked again, anywhere
"""
