//! A valid bearer token, from client credentials.
