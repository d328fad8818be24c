"""Train and fine-tune Druse models; build datasets."""
