//! The few things that outlive the process.
