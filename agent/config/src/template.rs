//! The user endpoint template: Jinja as `globus-compute-endpoint` renders it.
//!
//! Undefined names are errors, and so is truth-testing them. Strings of the submitter arrive JSON-encoded, so that
//! they can not break out of a YAML value; `shell_escape` quotes such a string for a shell within its encoding. What
//! the endpoint knows is under `_GC`. `tests/compatibility/templates.json` holds what the Python original renders.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use super::python;

/// Names that a submitter may not use, because templates find the endpoint's own values there.
pub const RESERVED_WORDS: [&str; 4] = ["parent_config", "user_runtime", "mapped_identity", "_GC"];

/// What a template is rendered with.
#[derive(Debug, Clone)]
pub struct TemplateInput<'a> {
    /// The template's text.
    pub template: &'a str,
    /// Where `include`, `import` and `extends` find other templates.
    pub folder: Option<&'a Path>,
    /// The submitter's `user_endpoint_config`, as JSON text; an object or null.
    pub user_options: &'a str,
    /// What the submitter's SDK says of itself, as JSON text; an object or null.
    pub user_runtime: &'a str,
    /// The manager's configuration, for `_GC.parent_config`.
    pub parent_config: Value,
    /// For whom the user endpoint runs, for `_GC.mapped_identity`.
    pub mapped_identity: Value,
    /// The agent's environment variables, for `_GC.env`.
    pub environment: &'a BTreeMap<String, String>,
}

/// Why no configuration came of a template. The texts go to the submitter.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The options use a name that is taken.
    #[error("'{0}' is a reserved word and cannot be passed in via user config")]
    ReservedWord(String),
    /// The options are not a JSON object.
    #[error("the user endpoint configuration must be an object of options, and is not: {0}")]
    Options(String),
    /// The template uses something that was not given.
    #[error("(UndefinedError) {0}")]
    Undefined(String),
    /// The template is wrong, or fails with these options.
    #[error("(TemplateError) {0}")]
    Template(String),
}

/// Renders the template to the text of a user endpoint's configuration.
///
/// # Errors
/// [`TemplateError`] in words for the submitter.
pub fn render(input: &TemplateInput<'_>) -> Result<String, TemplateError> {
    let options = object(input.user_options)?;
    for word in RESERVED_WORDS {
        if options.iter().any(|(name, _)| name == word) {
            return Err(TemplateError::ReservedWord(word.to_owned()));
        }
    }
    let runtime = Value::from_pairs(object(input.user_runtime)?);
    let reserved = Value::from_pairs(vec![
        ("parent_config".to_owned(), input.parent_config.clone()),
        ("mapped_identity".to_owned(), input.mapped_identity.clone()),
        ("user_runtime".to_owned(), runtime.clone()),
        (
            "env".to_owned(),
            Value::from_pairs(
                input
                    .environment
                    .iter()
                    .map(|(name, value)| (name.clone(), Value::from(value.clone()))),
            ),
        ),
    ]);
    let mut names = options;
    names.push(("_GC".to_owned(), reserved));
    // These three are deprecated outside of `_GC`, and still there.
    names.push(("parent_config".to_owned(), input.parent_config.clone()));
    names.push(("mapped_identity".to_owned(), input.mapped_identity.clone()));
    names.push(("user_runtime".to_owned(), runtime));

    let mut environment = Environment::new();
    // Errors then know which part of the template they are about.
    environment.set_debug(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(write_as_python);
    environment.add_filter("shell_escape", shell_escape);
    if let Some(folder) = input.folder {
        environment.set_loader(minijinja::path_loader(folder));
    }
    environment
        .template_from_str(input.template)
        .and_then(|template| template.render(Value::from_pairs(names)))
        .map_err(|error| explain(&error))
}

/// The names of the deprecated variables that a template uses, for a warning.
#[must_use]
pub fn deprecated_names(template: &str) -> Vec<&'static str> {
    let environment = Environment::new();
    let Ok(template) = environment.template_from_str(template) else {
        return Vec::new();
    };
    let used = template.undeclared_variables(false);
    RESERVED_WORDS
        .into_iter()
        .filter(|name| *name != "_GC" && used.contains(*name))
        .collect()
}

/// Reads a JSON object and makes every string in it a JSON string once more, in the order of the text.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add kinds, and does not let them be listed"
)]
fn object(json: &str) -> Result<Vec<(String, Value)>, TemplateError> {
    let value: Value = serde_json::from_str(json).map_err(|error| TemplateError::Options(error.to_string()))?;
    match value.kind() {
        ValueKind::None => Ok(Vec::new()),
        ValueKind::Map => entries(&value),
        other => Err(TemplateError::Options(format!("it is a {other}"))),
    }
}

fn entries(map: &Value) -> Result<Vec<(String, Value)>, TemplateError> {
    let keys = map
        .try_iter()
        .map_err(|error| TemplateError::Options(error.to_string()))?;
    keys.map(|key| {
        let value = map
            .get_item(&key)
            .map_err(|error| TemplateError::Options(error.to_string()))?;
        Ok((key.as_str().unwrap_or_default().to_owned(), encode(&value)?))
    })
    .collect()
}

fn encode(value: &Value) -> Result<Value, TemplateError> {
    Ok(match value.kind() {
        ValueKind::None => Value::from("null"),
        ValueKind::String => Value::from(python::json_string(value.as_str().unwrap_or_default())),
        ValueKind::Seq => value
            .try_iter()
            .map_err(|error| TemplateError::Options(error.to_string()))?
            .map(|item| encode(&item))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        ValueKind::Map => Value::from_pairs(entries(value)?),
        ValueKind::Bool
        | ValueKind::Number
        | ValueKind::Undefined
        | ValueKind::Bytes
        | ValueKind::Iterable
        | ValueKind::Plain
        | ValueKind::Invalid => value.clone(),
        // The library may learn more kinds; none of them comes out of JSON.
        _ => value.clone(),
    })
}

/// Prints values as Python's `str` does: `True`, `None`, `1e+20`, `['a']`. YAML reads them alike.
fn write_as_python(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    // Only an `if` without `else` comes here undefined, and prints nothing, as in Python.
    if value.is_undefined() {
        return Ok(());
    }
    out.write_str(&python::to_text(value))
        .map_err(|_| Error::new(ErrorKind::WriteFailure, "the rendered text could not be written"))
}

fn shell_escape(value: &Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return Ok(value.clone());
    };
    let decoded: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            "shell_escape takes a submitter's string or a JSON string",
        )
        .with_source(error)
    })?;
    Ok(match decoded {
        serde_json::Value::String(text) => Value::from(python::json_string(&python::shell_quote(&text))),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => value.clone(),
    })
}

fn explain(error: &Error) -> TemplateError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.kind() == ErrorKind::UndefinedError {
        let name = error
            .range()
            .zip(error.template_source())
            .and_then(|(range, source)| source.get(range));
        TemplateError::Undefined(name.map_or(text, |name| format!("'{name}' is undefined")))
    } else {
        TemplateError::Template(text)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct Table {
        runtime: Box<RawValue>,
        included: BTreeMap<String, String>,
        identity: String,
        rows: Vec<Row>,
    }

    #[derive(Deserialize)]
    struct Row {
        template: String,
        options: Box<RawValue>,
        rendered: Option<String>,
        error: Option<String>,
    }

    #[test]
    fn templates_render_as_upstream_renders_them() {
        let table: Table = serde_json::from_str(include_str!("../../../tests/compatibility/templates.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &table.included {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let environment = BTreeMap::from([("WAYPOST_TABLE".to_owned(), "from: the 'environment'".to_owned())]);
        let mut wrong = Vec::new();
        for row in &table.rows {
            let rendered = render(&TemplateInput {
                template: &row.template,
                folder: Some(folder.path()),
                user_options: row.options.get(),
                user_runtime: table.runtime.get(),
                parent_config: minijinja::context! {
                    display_name => "Parent's name", heartbeat_period => 30, public => true,
                },
                mapped_identity: minijinja::context! {
                    local => minijinja::context! { uid => 0, uname => "root" },
                    globus => minijinja::context! { id => &table.identity },
                },
                environment: &environment,
            });
            let same = match (&rendered, &row.rendered) {
                (Ok(ours), Some(theirs)) => ours == theirs,
                (Err(_), None) => true,
                _ => false,
            };
            if !same {
                wrong.push(format!(
                    "{:?}\n  upstream {:?} {:?}\n  here     {rendered:?}",
                    row.template, row.rendered, row.error
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn rendered(template: &str, options: &str) -> Result<String, TemplateError> {
        render(&TemplateInput {
            template,
            folder: None,
            user_options: options,
            user_runtime: "null",
            parent_config: Value::UNDEFINED,
            mapped_identity: Value::UNDEFINED,
            environment: &BTreeMap::new(),
        })
    }

    #[test]
    fn a_submitter_can_not_add_keys_to_the_configuration() {
        let text = rendered("worker_init: {{ x }}", r#"{"x": "a\nmax_blocks: 1000000 # 😀"}"#).unwrap();
        let value = super::super::yaml::parse(&text).unwrap();
        let super::super::yaml::Value::Mapping(entries) = value else {
            panic!("a mapping was rendered")
        };
        assert_eq!(entries.len(), 1);
        assert_eq!(
            entries[0].1,
            super::super::yaml::Value::Text("a\nmax_blocks: 1000000 # 😀".to_owned())
        );
    }

    #[test]
    fn an_undefined_name_is_an_error_of_its_own_kind() {
        assert!(matches!(
            rendered("{{ blocks }}", "{}"),
            Err(TemplateError::Undefined(_))
        ));
        assert!(matches!(rendered("x", "[1]"), Err(TemplateError::Options(_))));
        assert!(matches!(
            rendered("x", r#"{"_GC": 1}"#),
            Err(TemplateError::ReservedWord(_))
        ));
    }

    #[test]
    fn deprecated_names_are_found() {
        assert_eq!(
            deprecated_names("{{ user_runtime.x }}{{ _GC.parent_config }}"),
            ["user_runtime"]
        );
    }
}
