"""Mask R-CNN on timm backbones, built so that its inference graph can be exported as it is."""
