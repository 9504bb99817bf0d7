use super::{AUTH_SERVER, COMPUTE_SCOPE, COMPUTE_SERVER};

/// Scopes that belong to one resource server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerScopes {
    pub(super) server: &'static str,
    /// Separated by spaces.
    pub(super) scope: String,
}

/// Why scopes are not granted: a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScopeError {
    /// Nothing is asked for.
    #[error("the request names no scope")]
    None,
    /// No resource server here has it.
    #[error("the scope {0} is not granted here")]
    Unknown(String),
}

/// The resource server that grants a scope.
fn resource_server(scope: &str) -> Option<&'static str> {
    // A dependent scope may follow in brackets.
    match scope.split('[').next().unwrap_or_default().trim_start_matches('*') {
        COMPUTE_SCOPE => Some(COMPUTE_SERVER),
        "openid" | "profile" | "email" => Some(AUTH_SERVER),
        urn if urn.starts_with("urn:globus:auth:scope:auth.globus.org:") => Some(AUTH_SERVER),
        _ => None,
    }
}

/// The scopes of a request by their resource servers, each once, in the order in which they are named.
///
/// # Errors
/// [`ScopeError`].
pub(super) fn by_server(scope: &str) -> Result<Vec<ServerScopes>, ScopeError> {
    let mut found: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for scope in scope.split_whitespace().filter(|scope| *scope != "offline_access") {
        let server = resource_server(scope).ok_or_else(|| ScopeError::Unknown(scope.to_owned()))?;
        match found.iter_mut().find(|(known, _)| *known == server) {
            None => found.push((server, vec![scope])),
            Some((_, scopes)) if !scopes.contains(&scope) => scopes.push(scope),
            Some(_) => {}
        }
    }
    if found.is_empty() {
        return Err(ScopeError::None);
    }
    Ok(found
        .into_iter()
        .map(|(server, scopes)| ServerScopes {
            server,
            scope: scopes.join(" "),
        })
        .collect())
}

/// Whether a scope is among those of a text.
pub(super) fn names(scope: &str, wanted: &str) -> bool {
    scope.split_whitespace().any(|scope| scope == wanted)
}

/// What scopes allow, in words for a user.
pub(super) fn in_words(scope: &str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for scope in scope.split_whitespace() {
        let text = match resource_server(scope) {
            Some(COMPUTE_SERVER) => {
                "use Globus Compute as you: register functions and endpoints, run tasks on them, and read their results"
            }
            Some(AUTH_SERVER) => "see your name and identity",
            _ => continue,
        };
        if !words.contains(&text) {
            words.push(text);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sorted_by_server_and_each_is_granted_once() {
        let found = by_server(&format!(
            "openid {COMPUTE_SCOPE} urn:globus:auth:scope:auth.globus.org:manage_projects {COMPUTE_SCOPE} offline_access"
        ))
        .unwrap();
        let expected = [
            (
                AUTH_SERVER,
                "openid urn:globus:auth:scope:auth.globus.org:manage_projects",
            ),
            (COMPUTE_SERVER, COMPUTE_SCOPE),
        ];
        assert_eq!(
            found,
            expected.map(|(server, scope)| ServerScopes {
                server,
                scope: scope.to_owned()
            })
        );
        assert_eq!(by_server(" "), Err(ScopeError::None));
        assert_eq!(by_server("openid other"), Err(ScopeError::Unknown("other".to_owned())));
    }
}
