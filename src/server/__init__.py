"""The server role: endpoint, deciding core, planner, executor and log processes, profiler."""

import os

# How gRPC reads the server's sockets: in the thread that waits for its completions anyway. By default a frame passes
# two threads of its event engine before that one, and each hand-over is a wake-up. gRPC looks when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
