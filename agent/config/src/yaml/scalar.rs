//! The types of scalars in YAML 1.1, as far as PyYAML follows them (<https://yaml.org/type/>).

use std::sync::LazyLock;

use regex::Regex;

/// What a scalar is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Float,
    Timestamp,
    Merge,
    /// `=`, which PyYAML resolves and then has no constructor for.
    Default,
    Text,
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the pattern is fixed")
}

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?",
        r"|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ))
});
static INTEGER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+"
    ))
});
static TIMESTAMP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?",
        r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?"
    ))
});

/// What a plain scalar without a tag is.
pub(super) fn implicit(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "<<" => Kind::Merge,
        "=" => Kind::Default,
        "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "on"
        | "On" | "ON" | "off" | "Off" | "OFF" => Kind::Boolean,
        _ if FLOAT.is_match(text) => Kind::Float,
        _ if INTEGER.is_match(text) => Kind::Integer,
        _ if TIMESTAMP.is_match(text) => Kind::Timestamp,
        _ => Kind::Text,
    }
}

/// What it stands for, if it is a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

fn signed(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// What it stands for, if it is a whole number that fits.
pub(super) fn integer(text: &str) -> Option<i128> {
    let text = text.replace('_', "");
    let (negative, digits) = signed(&text);
    let sign = if negative { "-" } else { "" };
    // The sign goes with the digits, so that the smallest number fits, too.
    let read = |digits: &str, radix| i128::from_str_radix(&format!("{sign}{digits}"), radix).ok();
    if digits == "0" {
        Some(0)
    } else if let Some(digits) = digits.strip_prefix("0b") {
        read(digits, 2)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        read(digits, 16)
    } else if digits.starts_with('0') {
        read(digits, 8)
    } else if digits.contains(':') {
        let mut value = 0_i128;
        for part in digits.split(':') {
            value = value.checked_mul(60)?.checked_add(part.parse().ok()?)?;
        }
        Some(if negative { -value } else { value })
    } else {
        read(digits, 10)
    }
}

/// What it stands for, if it is a number.
pub(super) fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_lowercase();
    let (negative, digits) = signed(&text);
    let value = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            let mut value = 0.0;
            let mut base = 1.0;
            for part in digits.rsplit(':') {
                value += part.parse::<f64>().ok()? * base;
                base *= 60.0;
            }
            value
        }
        _ => digits.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}
