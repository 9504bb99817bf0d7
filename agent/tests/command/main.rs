//! The commands as a user types them: the real program, its files, texts and exit codes.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod configure;
mod login;
mod program;
mod service;
mod show;
mod start;
mod validate;
