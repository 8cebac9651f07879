"""The server role: endpoint, deciding core, planner, executor and log processes, profiler."""
