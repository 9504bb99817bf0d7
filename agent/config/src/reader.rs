//! Reads typed values out of a YAML mapping and collects every problem with the path of the key that has it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a value that is not of the type wanted is a problem, whatever it is"
)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::yaml::Value;

/// Something wrong in a configuration, or worth a remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, with dots: `engine.provider.max_blocks`.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "`{}`: {}", self.path, self.what)
        }
    }
}

/// What was found while reading: problems make the configuration unusable, remarks do not.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) remarks: Vec<Problem>,
    /// Where files that the configuration names are, if their paths are not absolute.
    folder: Option<PathBuf>,
}

impl Findings {
    pub(super) fn in_folder(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(Path::to_owned),
            ..Self::default()
        }
    }

    /// The path of a file that the configuration names.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder
            .as_ref()
            .map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
    }
}

/// One mapping that is being read. Keys that nobody asked for are problems when it is finished.
pub(super) struct Section<'a> {
    path: String,
    entries: Vec<(&'a str, &'a Value, bool)>,
}

impl<'a> Section<'a> {
    /// Opens a mapping; anything else is a problem and reads as an empty one.
    pub(super) fn open(value: &'a Value, path: &str, findings: &mut Findings) -> Self {
        let mut section = Self {
            path: path.to_owned(),
            entries: Vec::new(),
        };
        match value {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    if let Value::Text(key) = key {
                        section.entries.push((key, value, false));
                    } else {
                        findings.problems.push(Problem {
                            path: section.key(&key.to_string()),
                            what: format!("a key must be text, and this is {}; quote it", key.kind()),
                        });
                    }
                }
            }
            Value::Null => {}
            other => findings.problems.push(Problem {
                path: path.to_owned(),
                what: format!("must be a mapping of keys to values, and is {}", other.kind()),
            }),
        }
        section
    }

    /// A mapping without keys.
    pub(super) fn empty() -> Self {
        Self {
            path: String::new(),
            entries: Vec::new(),
        }
    }

    /// The whole path of a key of this mapping.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Whether the key is there at all, `null` included.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| *name == key)
    }

    /// Takes a key's value; `null` counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a Value> {
        let entry = self.entries.iter_mut().find(|(name, ..)| *name == key)?;
        entry.2 = true;
        (*entry.1 != Value::Null).then_some(entry.1)
    }

    /// Takes the entries of a mapping, none if it is absent; `of` is what it maps to what, for people.
    pub(super) fn mapping(&mut self, findings: &mut Findings, key: &str, of: &str) -> &'a [(Value, Value)] {
        match self.take(key) {
            None => &[],
            Some(Value::Mapping(entries)) => entries,
            Some(other) => {
                let what = format!("must be a mapping of {of}, and is {}", other.kind());
                self.problem(findings, key, what);
                &[]
            }
        }
    }

    pub(super) fn problem(&self, findings: &mut Findings, key: &str, what: impl Into<String>) {
        findings.problems.push(Problem {
            path: self.key(key),
            what: what.into(),
        });
    }

    pub(super) fn remark(&self, findings: &mut Findings, key: &str, what: impl Into<String>) {
        findings.remarks.push(Problem {
            path: self.key(key),
            what: what.into(),
        });
    }

    fn read<T>(
        &mut self,
        findings: &mut Findings,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let converted = convert(value);
        if converted.is_none() {
            // The value itself is not repeated: it may be a secret that slipped into the wrong key.
            self.problem(findings, key, format!("must be {expected}, and is {}", describe(value)));
        }
        converted
    }

    pub(super) fn text(&mut self, findings: &mut Findings, key: &str) -> Option<String> {
        self.read(findings, key, "text (quote it)", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn boolean(&mut self, findings: &mut Findings, key: &str) -> Option<bool> {
        self.read(findings, key, "true or false", |value| match value {
            Value::Boolean(value) => Some(*value),
            Value::Integer(0) => Some(false),
            Value::Integer(1) => Some(true),
            Value::Text(text) => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
                "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// A whole number from `min`; negative numbers count as 0 if `min` is 0 and `clamp` says so (as upstream does).
    pub(super) fn count(&mut self, findings: &mut Findings, key: &str, min: u32) -> Option<u32> {
        let expected = format!("a whole number, {min} or more");
        self.read(findings, key, &expected, |value| {
            whole(value)
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number >= min)
        })
    }

    /// As [`Section::count`], but what is below 0 counts as 0, as upstream reads it.
    pub(super) fn count_or_zero(&mut self, findings: &mut Findings, key: &str) -> Option<u32> {
        self.read(findings, key, "a whole number", |value| {
            whole(value).and_then(|number| u32::try_from(number.max(0)).ok())
        })
    }

    pub(super) fn size(&mut self, findings: &mut Findings, key: &str) -> Option<usize> {
        self.read(findings, key, "a number of bytes, 1 or more", |value| {
            whole(value)
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| *number > 0)
        })
    }

    pub(super) fn number(&mut self, findings: &mut Findings, key: &str, min: f64, max: f64) -> Option<f64> {
        let expected = if max.is_finite() {
            format!("a number from {min} to {max}")
        } else {
            format!("a number, {min} or more")
        };
        self.read(findings, key, &expected, |value| {
            float(value).filter(|number| *number >= min && *number <= max)
        })
    }

    pub(super) fn seconds(&mut self, findings: &mut Findings, key: &str) -> Option<Duration> {
        self.read(findings, key, "a number of seconds", |value| {
            Duration::try_from_secs_f64(float(value)?).ok()
        })
    }

    pub(super) fn uuid(&mut self, findings: &mut Findings, key: &str) -> Option<Uuid> {
        self.read(findings, key, "a UUID", |value| match value {
            Value::Text(text) => Uuid::try_parse(text.trim()).ok(),
            _ => None,
        })
    }

    pub(super) fn uuids(&mut self, findings: &mut Findings, key: &str) -> Option<Vec<Uuid>> {
        self.read(findings, key, "a list of UUIDs", |value| match value {
            Value::List(list) => list
                .iter()
                .map(|value| match value {
                    Value::Text(text) => Uuid::try_parse(text.trim()).ok(),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    pub(super) fn texts(&mut self, findings: &mut Findings, key: &str) -> Option<Vec<String>> {
        self.read(findings, key, "a list of texts", |value| match value {
            Value::List(list) => list
                .iter()
                .map(|value| match value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    pub(super) fn choice<T: Copy>(&mut self, findings: &mut Findings, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.read(findings, key, &format!("one of: {}", names.join(", ")), |value| {
            let Value::Text(text) = value else { return None };
            choices.iter().find(|(name, _)| name == text).map(|(_, choice)| *choice)
        })
    }

    pub(super) fn section(&mut self, findings: &mut Findings, key: &str) -> Option<Self> {
        let path = self.key(key);
        self.take(key).map(|value| Self::open(value, &path, findings))
    }

    /// Accepts keys that upstream has and that mean nothing here, with a remark for each.
    pub(super) fn without_effect(&mut self, findings: &mut Findings, keys: &[&str]) {
        for key in keys {
            if self.take(key).is_some() {
                self.remark(findings, key, "has no effect here");
            }
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, findings: &mut Findings) {
        for (key, _, taken) in &self.entries {
            if !taken {
                self.problem(findings, key, "is not a known key");
            }
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        // Numbers and booleans are no secrets, and to see what YAML made of a word helps.
        Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => format!("{} ({value})", value.kind()),
        Value::Text(text) if text.len() <= 40 => format!("the text {text:?}"),
        other => other.kind().to_owned(),
    }
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Integer(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some(*number as i128),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "configuration has no numbers above 2^53")]
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}
