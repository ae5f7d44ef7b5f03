"""The parse hook: lets the hosts build registered modules, in memory and reversibly."""
