// Holds the precompiled torch/torch.h that all files with libtorch in them share; see
// NestrecTargets.cmake.
