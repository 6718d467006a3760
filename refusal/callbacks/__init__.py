"""What Hydra does around a job: start and finish a W&B run, and after the job find circuits, draw, and report.

Each callback calls one function. Hydra turns an exception in a callback into a warning, so that each of them
marks the job as failed itself; jobs may run in other processes, so that callbacks hand each other files only.
"""
