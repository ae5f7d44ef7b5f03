"""The parse hook: how the hosts come to build registered modules, in memory and reversibly."""
