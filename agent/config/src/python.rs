//! Texts as Python writes them, where a template's output depends on it.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};

use super::yaml;

/// `json.dumps` of a string. Characters outside of the first plane are kept instead of split into two escapes, which
/// YAML could not put together again.
pub(super) fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='\u{7f}' | '\u{10000}'.. => json.push(character),
            other => {
                let _ = write!(json, "\\u{:04x}", u32::from(other));
            }
        }
    }
    json.push('"');
    json
}

/// `shlex.quote`.
pub(super) fn shell_quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }
}

/// `str(value)`.
pub(super) fn to_text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => representation(value),
    }
}

/// `str(value)` of what YAML holds.
pub(super) fn yaml_text(value: &yaml::Value) -> String {
    fn convert(value: &yaml::Value) -> Value {
        match value {
            yaml::Value::Null => Value::from(()),
            yaml::Value::Boolean(value) => Value::from(*value),
            yaml::Value::Integer(value) => Value::from(*value),
            yaml::Value::Float(value) => Value::from(*value),
            yaml::Value::Timestamp(text) | yaml::Value::Text(text) => Value::from(text.clone()),
            yaml::Value::List(list) => list.iter().map(convert).collect(),
            yaml::Value::Mapping(entries) => {
                Value::from_pairs(entries.iter().map(|(key, value)| (convert(key), convert(value))))
            }
        }
    }
    to_text(&convert(value))
}

/// `repr(value)`.
fn representation(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number => number(value),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<String> = value
                .try_iter()
                .map(|items| items.map(|item| representation(&item)).collect())
                .unwrap_or_default();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Map => {
            let items: Vec<String> = value
                .try_iter()
                .map(|keys| {
                    keys.map(|key| {
                        let value = value.get_item(&key).unwrap_or_default();
                        format!("{}: {}", representation(&key), representation(&value))
                    })
                    .collect()
                })
                .unwrap_or_default();
            format!("{{{}}}", items.join(", "))
        }
        ValueKind::Undefined | ValueKind::Bytes | ValueKind::Plain | ValueKind::Invalid => value.to_string(),
        // The library may learn more kinds; its own text is as good as any.
        _ => value.to_string(),
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(number) => float(number),
        Err(_) => value.to_string(),
    }
}

/// `repr` of a float: the shortest digits that read back as the same number, as Rust, but with Python's exponent.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{number:?}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other == quote => {
                quoted.push('\\');
                quoted.push(other);
            }
            other if other.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push(quote);
    quoted
}
