"""One command line for Druse: generate, relax, evaluate, discover."""
