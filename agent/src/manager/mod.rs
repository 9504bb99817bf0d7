//! Which user endpoints run, from which command and template.
//!
//! A [`TemplateEndpoint`] consumes commands and hosts a user endpoint for each name that they bring, all in this
//! process. A [`DirectEndpoint`] is one user endpoint, connected by what the registration gave. What either does shows on
//! its [`Board`].

mod command;
mod direct;
mod hosted;
mod render;
mod report;
mod shell;
mod status;
mod template;

pub use direct::DirectEndpoint;
pub(crate) use render::{RenderError, local_user, rendered, user_environment};
pub(crate) use shell::run_shell;
pub use status::{Board, EndpointStatus};
pub use template::TemplateEndpoint;

/// What came of a registration for fresh credentials.
#[derive(Debug)]
pub enum Renewed<T> {
    /// They are here.
    With(T),
    /// None for now.
    Not,
    /// The service will have the endpoint no longer: it is to stop.
    Over,
}
