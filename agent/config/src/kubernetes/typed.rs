//! Parts of a pod in the words of Kubernetes, read into its own types.
//!
//! Those types skip what they do not know, and a mistyped key must not be lost in silence: what was read is written
//! once more, and a key that does not come back was not known.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use crate::reader::{Findings, Problem, Section};
use crate::yaml::{self, Value};

/// Reads a key's value as a type of Kubernetes.
pub(super) fn typed<T: DeserializeOwned + Serialize>(
    section: &mut Section<'_>,
    findings: &mut Findings,
    key: &str,
) -> Option<T> {
    let value = section.take(key)?;
    convert(value, &section.key(key), findings)
}

/// As [`typed`], for a list; each of its members is read by itself, so that all problems are found.
pub(super) fn typed_list<T: DeserializeOwned + Serialize>(
    section: &mut Section<'_>,
    findings: &mut Findings,
    key: &str,
) -> Vec<T> {
    let Some(value) = section.take(key) else {
        return Vec::new();
    };
    let Value::List(list) = value else {
        section.problem(findings, key, format!("must be a list, and is {}", value.kind()));
        return Vec::new();
    };
    let path = section.key(key);
    list.iter()
        .enumerate()
        .filter_map(|(index, value)| convert(value, &format!("{path}[{index}]"), findings))
        .collect()
}

/// `pod_template`: a pod template or a pod, written here or in a file.
pub(super) fn pod_template(section: &mut Section<'_>, findings: &mut Findings) -> Option<Box<PodTemplateSpec>> {
    let value = section.take("pod_template")?;
    let path = section.key("pod_template");
    let Value::Text(file) = value else {
        return template(value, &path, findings);
    };
    let file = findings.file(file);
    let path = format!("{path} ({})", file.display());
    let mut problem = |what: String| {
        findings.problems.push(Problem {
            path: path.clone(),
            what,
        });
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            problem(format!("the file can not be read: {error}"));
            return None;
        }
    };
    match yaml::parse(&text) {
        Ok(value) => template(&value, &path, findings),
        Err(error) => {
            problem(format!("the file is not YAML: {error}"));
            None
        }
    }
}

fn template(value: &Value, path: &str, findings: &mut Findings) -> Option<Box<PodTemplateSpec>> {
    let mut problem = |path: String, what: &str| {
        findings.problems.push(Problem {
            path,
            what: what.to_owned(),
        });
    };
    let Value::Mapping(entries) = value else {
        problem(
            path.to_owned(),
            "must be a mapping with `metadata` and `spec`, or the path of a file that holds one",
        );
        return None;
    };
    let get = |key: &str| {
        entries
            .iter()
            .find(|(name, _)| matches!(name, Value::Text(name) if name == key))
    };
    // What `kubectl get -o yaml` writes is taken, too.
    let entries = match get("kind").map(|(_, kind)| kind) {
        None => entries.clone(),
        Some(Value::Text(kind)) if kind == "Pod" => entries
            .iter()
            .filter(
                |(key, _)| !matches!(key, Value::Text(key) if matches!(key.as_str(), "apiVersion" | "kind" | "status")),
            )
            .cloned()
            .collect(),
        Some(Value::Text(kind)) if kind == "PodTemplate" => match get("template") {
            Some((_, Value::Mapping(template))) => template.clone(),
            _ => {
                problem(format!("{path}.template"), "is missing");
                return None;
            }
        },
        Some(_) => {
            problem(format!("{path}.kind"), "must be Pod or PodTemplate");
            return None;
        }
    };
    convert(&Value::Mapping(entries), path, findings).map(Box::new)
}

fn convert<T: DeserializeOwned + Serialize>(value: &Value, path: &str, findings: &mut Findings) -> Option<T> {
    let before = findings.problems.len();
    let json = json(value, path, findings);
    if findings.problems.len() > before {
        return None;
    }
    let read: T = match serde_path_to_error::deserialize(&json) {
        Ok(read) => read,
        Err(error) => {
            let at = error.path().to_string();
            let at = if at == "." { String::new() } else { format!(".{at}") };
            findings.problems.push(Problem {
                path: format!("{path}{at}"),
                what: error.inner().to_string(),
            });
            return None;
        }
    };
    let back = serde_json::to_value(&read).unwrap_or(Json::Null);
    unknown(&json, &back, path, findings);
    (findings.problems.len() == before).then_some(read)
}

/// Reports the keys of `given` that `known` does not have.
fn unknown(given: &Json, known: &Json, path: &str, findings: &mut Findings) {
    match (given, known) {
        (Json::Object(given), Json::Object(known)) => {
            for (key, value) in given {
                match known.get(key) {
                    Some(known) => unknown(value, known, &format!("{path}.{key}"), findings),
                    None if value.is_null() => {}
                    None => findings.problems.push(Problem {
                        path: format!("{path}.{key}"),
                        what: "is not a known key".to_owned(),
                    }),
                }
            }
        }
        (Json::Array(given), Json::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                unknown(given, known, &format!("{path}[{index}]"), findings);
            }
        }
        _ => {}
    }
}

fn json(value: &Value, path: &str, findings: &mut Findings) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => Json::Bool(*value),
        Value::Integer(number) => {
            let number = i64::try_from(*number)
                .map(Number::from)
                .or_else(|_| u64::try_from(*number).map(Number::from));
            number.map_or_else(
                |_| {
                    findings.problems.push(Problem {
                        path: path.to_owned(),
                        what: "is a number that is too large".to_owned(),
                    });
                    Json::Null
                },
                Json::Number,
            )
        }
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Timestamp(text) | Value::Text(text) => Json::String(text.clone()),
        Value::List(list) => list
            .iter()
            .enumerate()
            .map(|(index, value)| json(value, &format!("{path}[{index}]"), findings))
            .collect(),
        Value::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let Value::Text(key) = key else {
                    findings.problems.push(Problem {
                        path: format!("{path}.{key}"),
                        what: format!("a key must be text, and this is {}; quote it", key.kind()),
                    });
                    continue;
                };
                map.insert(key.clone(), json(value, &format!("{path}.{key}"), findings));
            }
            Json::Object(map)
        }
    }
}
