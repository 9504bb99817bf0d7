use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap};
use url::Url;

use crate::config::Settings;

/// The address of this service as its clients know it, with a slash at its end: what `--public-url` says, or else as this
/// call names it. None if that is no address.
pub(super) fn base(settings: &Settings, headers: &HeaderMap, uri: &Uri) -> Option<Url> {
    if let Some(url) = &settings.public_url {
        return Some(url.clone());
    }
    let host = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| uri.authority().map(|authority| authority.as_str()))?;
    // A host and a port, and nothing else that a URL could hold.
    if host.contains(['/', '?', '#', '@', '\\']) {
        return None;
    }
    Url::parse(&format!("http://{host}/")).ok()
}

/// The same address with a path of this service after it.
pub(super) fn at(base: &Url, path: &str) -> String {
    format!("{base}{}", path.trim_start_matches('/'))
}
