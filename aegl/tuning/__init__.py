"""Search of hyper-parameters: trials, each a training run, in the folder of a study that can be gone on with."""
