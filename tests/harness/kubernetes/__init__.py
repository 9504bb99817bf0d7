"""A real Kubernetes for tests and the demo: built from Go modules, run on this machine, and gone without a trace."""
