//! YAML as PyYAML's `safe_load` reads it.
//!
//! Configuration files were written for PyYAML, which follows YAML 1.1: `no` is false, `010` is eight, `1:30` is
//! ninety, `1e3` is text, `<<` merges, and of two equal keys the last one counts. The parser is a library's; only the
//! meaning of scalars and keys is decided here. `tests/compatibility/yaml_scalars.json` holds what PyYAML says.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not expected at a place is refused, whatever it is"
)]

mod scalar;

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use self::scalar::{Kind, boolean, float, implicit, integer};

/// The most nodes that a document may have after its aliases are expanded: far above any configuration, far below
/// what would hurt.
const NODES_MAX: usize = 200_000;

/// A value of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true`, `no`, `off`, ...
    Boolean(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a point.
    Float(f64),
    /// A date or time, as it was written.
    Timestamp(String),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Self>),
    /// A mapping, in the order of its keys' first appearance.
    Mapping(Vec<(Self, Self)>),
}

impl Value {
    /// What it is, in words for an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Timestamp(_) => "a date",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Timestamp(value) | Self::Text(value) => write!(f, "{value:?}"),
            Self::List(_) | Self::Mapping(_) => f.write_str(self.kind()),
        }
    }
}

/// Why a text is not a YAML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (line {line}, column {column})")]
pub struct YamlError {
    what: String,
    line: usize,
    column: usize,
}

impl YamlError {
    fn new(what: impl Into<String>, at: Marker) -> Self {
        Self {
            what: what.into(),
            line: at.line(),
            column: at.col() + 1,
        }
    }
}

/// Reads one document; an empty text is [`Value::Null`].
///
/// # Errors
/// [`YamlError`] if it is not YAML, has several documents, uses a tag that `safe_load` does not know, or expands to
/// more than 200,000 nodes.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    let mut composer = Composer {
        // PyYAML drops a byte order mark. Comments would come as events where another crate of the build asks for them.
        parser: Parser::new_from_str_with_options(
            text.strip_prefix('\u{feff}').unwrap_or(text),
            granit_parser::options! { emit_comments: false },
        ),
        anchors: HashMap::new(),
        nodes: 0,
    };
    composer.document()
}

struct Composer<'input> {
    parser: Parser<'input, granit_parser::StrInput<'input>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A value, and whether it stood for itself as `<<` or `=` (which no `Value` can say).
#[derive(Clone)]
struct Node {
    value: Value,
    is_merge: bool,
    size: usize,
}

impl Node {
    /// `<<` means something as a key only.
    fn not_a_merge(self, at: Marker) -> Result<Self, YamlError> {
        if self.is_merge {
            return Err(unknown_tag("tag:yaml.org,2002:merge", at));
        }
        Ok(self)
    }
}

impl<'input> Composer<'input> {
    fn next(&mut self) -> Result<(Event<'input>, Marker), YamlError> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(YamlError::new(error.info(), *error.marker())),
            None => Ok((Event::StreamEnd, Marker::default())),
        }
    }

    fn document(&mut self) -> Result<Value, YamlError> {
        let mut value = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(value.unwrap_or(Value::Null)),
                Event::DocumentStart(..) => {
                    if value.is_some() {
                        return Err(YamlError::new(
                            "expected a single document, but found another document",
                            at,
                        ));
                    }
                    let (event, at) = self.next()?;
                    value = Some(match event {
                        Event::DocumentEnd => Value::Null,
                        event => self.node(event, at)?.not_a_merge(at)?.value,
                    });
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'input>, at: Marker) -> Result<Node, YamlError> {
        self.count(1, at)?;
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let node = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| YamlError::new("an alias stands inside what it refers to", at))?;
                self.count(node.size, at)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), at)?, anchor),
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                (self.sequence()?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                (self.mapping(at)?, anchor)
            }
            _ => return Err(YamlError::new("a value was expected here", at)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, at: Marker) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(YamlError::new(format!("more than {NODES_MAX} values"), at));
        }
        Ok(())
    }

    fn sequence(&mut self) -> Result<Node, YamlError> {
        let mut list = Vec::new();
        let mut size = 1;
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Node {
                    value: Value::List(list),
                    is_merge: false,
                    size,
                });
            }
            let node = self.node(event, at)?.not_a_merge(at)?;
            size += node.size;
            list.push(node.value);
        }
    }

    fn mapping(&mut self, start: Marker) -> Result<Node, YamlError> {
        let mut merged = Vec::new();
        let mut own = Vec::new();
        let mut size = 1;
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, at)?;
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at)?.not_a_merge(value_at)?;
            size += key.size + value.size;
            if key.is_merge {
                merge(value.value, &mut merged, value_at)?;
            } else if matches!(key.value, Value::List(_) | Value::Mapping(_)) {
                return Err(YamlError::new(format!("{} can not be a key", key.value.kind()), at));
            } else {
                own.push((key.value, value.value));
            }
        }
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (key, value) in merged.into_iter().chain(own) {
            if let Some(&place) = places.get(&identity(&key)) {
                entries[place].1 = value;
            } else {
                places.insert(identity(&key), entries.len());
                entries.push((key, value));
            }
        }
        self.count(0, start)?;
        Ok(Node {
            value: Value::Mapping(entries),
            is_merge: false,
            size,
        })
    }
}

/// Two keys with the same identity are one key of a Python dictionary, where `1`, `1.0` and `True` are equal.
fn identity(key: &Value) -> String {
    match key {
        Value::Boolean(value) => format!("number {}", i32::from(*value)),
        Value::Integer(value) => format!("number {value}"),
        Value::Float(value) if value.fract() == 0.0 => format!("number {value:.0}"),
        Value::Float(value) => format!("number {value}"),
        other => format!("{} {other}", other.kind()),
    }
}

/// Adds what `<<` brings. Of several mappings the first one counts, so they are added from the last.
fn merge(value: Value, into: &mut Vec<(Value, Value)>, at: Marker) -> Result<(), YamlError> {
    match value {
        Value::Mapping(entries) => into.extend(entries),
        Value::List(list) => {
            for value in list.into_iter().rev() {
                let Value::Mapping(entries) = value else {
                    return Err(YamlError::new(
                        format!("expected a mapping for merging, but found {}", value.kind()),
                        at,
                    ));
                };
                into.extend(entries);
            }
        }
        other => {
            return Err(YamlError::new(
                format!(
                    "expected a mapping or list of mappings for merging, but found {}",
                    other.kind()
                ),
                at,
            ));
        }
    }
    Ok(())
}

const CORE: &str = "tag:yaml.org,2002:";

fn full_tag(tag: &Tag) -> String {
    format!("{}{}", tag.handle(), tag.suffix())
}

fn check_tag(tag: Option<&Tag>, expected: &str, at: Marker) -> Result<(), YamlError> {
    match tag.map(full_tag) {
        None => Ok(()),
        Some(tag) if tag == "!" || tag.strip_prefix(CORE) == Some(expected) => Ok(()),
        Some(tag) => Err(unknown_tag(&tag, at)),
    }
}

fn unknown_tag(tag: &str, at: Marker) -> YamlError {
    YamlError::new(format!("could not determine a constructor for the tag '{tag}'"), at)
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Marker) -> Result<Node, YamlError> {
    let kind = match tag.map(full_tag) {
        None if style == ScalarStyle::Plain => implicit(text),
        None => Kind::Text,
        Some(tag) => match tag.strip_prefix(CORE) {
            Some("null") => Kind::Null,
            Some("bool") => Kind::Boolean,
            Some("int") => Kind::Integer,
            Some("float") => Kind::Float,
            Some("timestamp") => Kind::Timestamp,
            Some("merge") => Kind::Merge,
            Some("str") => Kind::Text,
            None if tag == "!" && style == ScalarStyle::Plain => implicit(text),
            None if tag == "!" => Kind::Text,
            _ => return Err(unknown_tag(&tag, at)),
        },
    };
    let bad = |what: &str| YamlError::new(format!("{text:?} is not {what}"), at);
    let value = match kind {
        Kind::Null => Value::Null,
        Kind::Boolean => Value::Boolean(boolean(text).ok_or_else(|| bad("a boolean"))?),
        Kind::Integer => Value::Integer(integer(text).ok_or_else(|| bad("a whole number that fits"))?),
        Kind::Float => Value::Float(float(text).ok_or_else(|| bad("a number"))?),
        Kind::Timestamp => Value::Timestamp(text.to_owned()),
        Kind::Text | Kind::Merge => Value::Text(text.to_owned()),
        Kind::Default => return Err(unknown_tag("tag:yaml.org,2002:value", at)),
    };
    Ok(Node {
        value,
        is_merge: kind == Kind::Merge,
        size: 1,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value as Json, json};

    use super::*;

    #[derive(Deserialize)]
    struct Row {
        text: String,
        value: Json,
    }

    /// The value as `tests/compatibility/tables.py` writes it.
    fn typed(value: &Value) -> Json {
        match value {
            Value::Null => json!({"null": true}),
            Value::Boolean(value) => json!({"bool": value}),
            Value::Integer(value) => json!({"int": value.to_string()}),
            Value::Float(value) => json!({"float": value}),
            Value::Timestamp(_) => json!({"date": true}),
            Value::Text(text) => json!({"str": text}),
            Value::List(list) => json!({"list": list.iter().map(typed).collect::<Vec<_>>()}),
            Value::Mapping(map) => {
                json!({"map": map.iter().map(|(key, value)| (typed(key), typed(value))).collect::<Vec<_>>()})
            }
        }
    }

    /// Python's texts of floats become numbers, or null if they are not finite, as `json!` makes of ours.
    fn normal(value: Json) -> Json {
        match value {
            Json::Object(map) => map
                .into_iter()
                .map(|(key, value)| match value {
                    Json::String(text) if key == "float" => (key, json!(text.parse::<f64>().unwrap())),
                    other => (key, normal(other)),
                })
                .collect(),
            Json::Array(list) => list.into_iter().map(normal).collect(),
            other => other,
        }
    }

    /// Documents that the parser takes differently than PyYAML does, each for a reason that hurts nobody.
    const DIFFERENT: &[(&str, &str)] = &[
        ("a\tb", "YAML 1.2 allows a tab inside of plain text"),
        ("\ta", "YAML 1.2 allows a tab before it"),
        ("...\n", "YAML 1.2 allows the end of a document that did not start"),
    ];

    #[test]
    fn documents_mean_what_they_mean_to_pyyaml() {
        let rows: Vec<Row> =
            serde_json::from_str(include_str!("../../../../tests/compatibility/yaml_scalars.json")).unwrap();
        assert!(rows.len() > 200);
        let mut wrong = Vec::new();
        for row in rows {
            let ours = parse(&row.text).map_or_else(|_| json!({"error": true}), |value| typed(&value));
            let theirs = normal(row.value);
            let expected_to_differ = DIFFERENT.iter().any(|(text, _)| *text == row.text);
            if (ours != theirs) != expected_to_differ {
                wrong.push(format!("{:?}: PyYAML {theirs}, here {ours}", row.text));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn infinities_and_not_a_number_keep_their_sign() {
        assert_eq!(parse("-.inf"), Ok(Value::Float(f64::NEG_INFINITY)));
        assert_eq!(parse(".inf"), Ok(Value::Float(f64::INFINITY)));
        assert!(matches!(parse(".nan"), Ok(Value::Float(value)) if value.is_nan()));
    }

    #[test]
    fn a_document_that_grows_without_end_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let alias = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
        }
        assert!(parse(&text).unwrap_err().to_string().contains("200000"));
    }

    #[test]
    fn comments_may_stand_anywhere() {
        let text = "# one\na: # two\n  # three\n  b: 1 # four\n  # five\nc:\n# six\n- x\n# seven\n- [y, # eight\n   z]\n# nine\n";
        assert_eq!(parse(text), parse("a: {b: 1}\nc: [x, [y, z]]"));
    }

    #[test]
    fn errors_say_where() {
        let error = parse("a: 1\nb: !nonsense 2\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("!nonsense"), "{error}");
    }
}
