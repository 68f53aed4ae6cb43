"""The engines that run the cells of a sweep: processes on this machine, tasks of a Ray cluster, jobs of SLURM."""
