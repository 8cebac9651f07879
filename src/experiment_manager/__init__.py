"""The experiment manager: sweeps over server and client machines by SSH, and what they measured."""
