"""Deep models on raw keys: the models, the trainer that reads, steps, cuts and resumes, and the way out to ONNX.

Everything here but `scorer` needs PyTorch (`pip install 'penstock[deep]'`). docs/deep.md shows how it is used.
"""
