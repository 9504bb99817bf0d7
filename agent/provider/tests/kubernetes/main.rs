//! The Kubernetes provider against a real cluster, each test in a namespace of its own that it removes.
//!
//! They need `KUBECONFIG`, a node that has the images below, and the right to make namespaces: `./test cluster` runs them,
//! by `cargo test --release -p endpoint-provider --test kubernetes -- --ignored`. Asked to run without, they fail.
//!
//! | variable | what it names |
//! |---|---|
//! | `WAYPOST_TEST_IMAGE` | an image with a shell and Python, present on the node |
//! | `WAYPOST_TEST_WORKER_IMAGE` | the worker image, present on the node |

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a test that failed had seen is what its reader needs"
)]

mod interference;
mod leavings;
mod life;
mod refusals;
mod waiting;
mod world;
