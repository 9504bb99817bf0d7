//! Calls to the web service.
