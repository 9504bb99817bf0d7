//! The JSON schema that a submitter's options must meet.

use serde_json::Value;

/// Why options were refused, or the schema could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The file is not JSON.
    #[error("the user config schema is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON is not a schema.
    #[error("(SchemaError) the user config schema is invalid: {0}")]
    Schema(String),
    /// The options do not meet the schema; every reason.
    #[error("(ValidationError) {}", .0.join("; "))]
    Options(Vec<String>),
}

/// Reads a schema and checks that it is one.
///
/// # Errors
/// [`SchemaError::Json`] or [`SchemaError::Schema`].
pub fn read(text: &str) -> Result<Value, SchemaError> {
    let schema = serde_json::from_str(text)?;
    compile(&schema)?;
    Ok(schema)
}

fn compile(schema: &Value) -> Result<jsonschema::Validator, SchemaError> {
    jsonschema::validator_for(schema).map_err(|error| SchemaError::Schema(error.to_string()))
}

/// Checks options against a schema.
///
/// # Errors
/// [`SchemaError::Options`] with everything that is wrong with them, for the submitter.
pub fn validate(schema: &Value, options: &Value) -> Result<(), SchemaError> {
    let validator = compile(schema)?;
    let problems: Vec<String> = validator
        .iter_errors(options)
        .map(|error| {
            let path = error.instance_path().to_string();
            let mut text = error.to_string();
            if !path.is_empty() {
                text = format!("{text} (at {path})");
            }
            match described(schema, &error.schema_path().to_string()) {
                Some(description) => format!("{text}: {description}"),
                None => text,
            }
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(SchemaError::Options(problems))
    }
}

/// What the schema says about the option whose rule was broken: a pattern alone explains nothing to a submitter.
fn described<'a>(schema: &'a Value, rule: &str) -> Option<&'a str> {
    let (option, _) = rule.rsplit_once('/')?;
    if option.is_empty() {
        return None;
    }
    schema.pointer(option)?.get("description")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_problems_of_the_options_are_named() {
        let schema =
            read(r#"{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}"#).unwrap();
        validate(&schema, &json!({"a": 1, "b": 2})).unwrap();
        let problems = validate(&schema, &json!({"a": "x"})).unwrap_err().to_string();
        assert!(problems.contains("integer") && problems.contains("\"b\""), "{problems}");
    }

    #[test]
    fn an_option_that_breaks_a_rule_is_explained_by_its_description() {
        let schema = read(
            r#"{"type": "object", "properties": {"a": {"type": "string", "pattern": "^x$", "description": "an x"}}}"#,
        )
        .unwrap();
        let problems = validate(&schema, &json!({"a": "y"})).unwrap_err().to_string();
        assert!(problems.ends_with("(at /a): an x"), "{problems}");
    }

    #[test]
    fn what_is_not_a_schema_is_refused_before_anything_is_validated() {
        assert!(matches!(read("{"), Err(SchemaError::Json(_))));
        assert!(matches!(read(r#"{"type": "nonsense"}"#), Err(SchemaError::Schema(_))));
    }
}
