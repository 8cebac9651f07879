"""Discrete-event runs of whole workloads, and planning studies.

The event engine calls the same planning, dispatching, estimation and adaptation code as the live server and client;
only links, cameras and devices are simulated. See ``docs/simulation.md``.
"""
