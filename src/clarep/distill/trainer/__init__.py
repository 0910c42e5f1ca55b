"""One trainer for all methods: what an epoch, a step and a run's folder are."""
