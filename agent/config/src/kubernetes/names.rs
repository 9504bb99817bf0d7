//! The rules of Kubernetes for names, labels and annotations, in words.

/// A label of DNS: names of namespaces and containers.
pub(super) fn dns_label(text: &str) -> Result<(), &'static str> {
    let fits = !text.is_empty()
        && text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    fits.then_some(())
        .ok_or("must be lower-case letters, digits and `-`, at most 63, with a letter or digit at both ends")
}

/// A subdomain of DNS: names of most objects.
pub(super) fn dns_subdomain(text: &str) -> Result<(), &'static str> {
    let fits = text.len() <= 253 && text.split('.').all(|part| dns_label(part).is_ok());
    fits.then_some(())
        .ok_or("must be lower-case letters, digits, `-` and `.`, at most 253, with a letter or digit at both ends")
}

/// The key of a label, an annotation or a resource: an optional DNS subdomain and `/`, then a name.
pub(super) fn qualified_name(text: &str) -> Result<(), &'static str> {
    let name = match text.split_once('/') {
        Some((prefix, name)) if dns_subdomain(prefix).is_ok() => name,
        Some(_) => "",
        None => text,
    };
    (!name.is_empty() && label_text(name)).then_some(()).ok_or(
        "must be a name of letters, digits, `-`, `_` and `.`, at most 63, with a letter or digit at both ends, and may have a domain and `/` before it",
    )
}

/// The value of a label; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), &'static str> {
    (text.is_empty() || label_text(text))
        .then_some(())
        .ok_or("must be letters, digits, `-`, `_` and `.`, at most 63, with a letter or digit at both ends")
}

fn label_text(text: &str) -> bool {
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Result<(), &'static str> {
    let fits = text.chars().all(|c| c.is_ascii_graphic() && c != '=') && !text.is_empty();
    fits.then_some(()).ok_or("must be visible ASCII characters without `=`")
}

/// An image's reference. Whether it names an image is for the container runtime to say.
pub(super) fn image(text: &str) -> Result<(), &'static str> {
    let fits = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    fits.then_some(()).ok_or("must be an image's name, without spaces")
}

/// An absolute path in a container, outside of our own folder.
pub(super) fn mount_path(text: &str) -> Result<(), &'static str> {
    if !text.starts_with('/') {
        return Err("must be an absolute path");
    }
    if text.contains(':') {
        return Err("must not contain `:`");
    }
    if text == "/waypost" || text.starts_with("/waypost/") {
        return Err("must not be below /waypost, which holds the worker itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_kubernetes() {
        assert!(dns_label("a-1").is_ok());
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", &"x".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.9").is_ok());
        for bad in ["", "a..b", ".a", "a/b"] {
            assert!(dns_subdomain(bad).is_err(), "{bad}");
        }
        for good in ["a", "nvidia.com/gpu", "A_b.c", "example.org/x-Y"] {
            assert!(qualified_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Org/x", "-a"] {
            assert!(qualified_name(bad).is_err(), "{bad}");
        }
        assert!(label_value("").is_ok() && label_value("a b").is_err());
        assert!(mount_path("/data").is_ok() && mount_path("/waypost/bin").is_err() && mount_path("data").is_err());
        assert!(image("python:3.12").is_ok() && image("python: 3.12").is_err());
    }
}
