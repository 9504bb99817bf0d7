//! What a service wants of a login beyond what it was: a Globus Auth Requirements Error (GARE), such as for an endpoint whose
//! authentication policy asks for an identity of one domain, or for a session of the last hour.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;

/// Parameters of the login that the service asks for. They go into the address that the person opens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoginRequirements {
    session_message: Option<String>,
    #[serde(deserialize_with = "list")]
    session_required_identities: Vec<String>,
    #[serde(deserialize_with = "list")]
    session_required_policies: Vec<String>,
    #[serde(deserialize_with = "list")]
    session_required_single_domain: Vec<String>,
    session_required_mfa: Option<bool>,
    #[serde(deserialize_with = "list")]
    required_scopes: Vec<String>,
    prompt: Option<String>,
}

impl LoginRequirements {
    /// Reads them out of what a service answered; nothing if it asks for no other login.
    #[must_use]
    pub fn of_answer(body: &str) -> Option<Self> {
        let root: Value = serde_json::from_str(body).ok()?;
        let inner = root["errors"].as_array().into_iter().flatten();
        inner.chain([&root]).find_map(Self::of_document)
    }

    /// As Globus's services say it now, or as some of them said it before.
    fn of_document(document: &Value) -> Option<Self> {
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        if document["authorization_parameters"].is_object() {
            let mut found = Self::deserialize(&document["authorization_parameters"]).ok()?;
            found.session_message = found.session_message.or_else(|| text("reason"));
            return Some(found);
        }
        if document["code"] != "ConsentRequired" {
            return None;
        }
        let scopes = ["required_scopes", "required_scope"].map(|key| &document[key]);
        let scopes = scopes.into_iter().find(|scopes| !scopes.is_null())?;
        Some(Self {
            session_message: text("message").or_else(|| text("description")),
            required_scopes: list(scopes).ok()?,
            ..Self::default()
        })
    }

    /// Scopes that the login has to cover, too.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.required_scopes.iter().map(String::as_str)
    }

    /// Adds the parameters to an address of a login.
    pub(super) fn append_to(&self, url: &mut Url) {
        let lists = [
            ("session_required_identities", &self.session_required_identities),
            ("session_required_single_domain", &self.session_required_single_domain),
            ("session_required_policies", &self.session_required_policies),
        ];
        let mut pairs = url.query_pairs_mut();
        for (name, values) in lists {
            if !values.is_empty() {
                pairs.append_pair(name, &values.join(","));
            }
        }
        if let Some(needed) = self.session_required_mfa {
            // Python's words.
            pairs.append_pair("session_required_mfa", if needed { "True" } else { "False" });
        }
        for (name, value) in [("session_message", &self.session_message), ("prompt", &self.prompt)] {
            if let Some(value) = value {
                pairs.append_pair(name, value);
            }
        }
    }
}

/// A list, or what some services send in its place: one text with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        List(Vec<String>),
        Text(String),
        Nothing,
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::List(values) => values,
        Given::Text(text) => text.split(',').map(|value| value.trim().to_owned()).collect(),
        Given::Nothing => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(requirements: &LoginRequirements) -> String {
        let mut url = Url::parse("https://auth.example/authorize").unwrap();
        requirements.append_to(&mut url);
        url.query().unwrap_or_default().to_owned()
    }

    #[test]
    fn each_form_in_which_a_service_asks_is_read() {
        let now = r#"{"code": "AuthorizationRequired", "reason": "two factors", "authorization_parameters": {
            "session_required_policies": ["one", "two"], "session_required_mfa": true, "prompt": "login", "more": 1}}"#;
        let found = LoginRequirements::of_answer(now).unwrap();
        assert_eq!(
            query(&found),
            "session_required_policies=one%2Ctwo&session_required_mfa=True&session_message=two+factors&prompt=login"
        );
        let listed = r#"{"errors": [{"code": "other"}, {"authorization_parameters": {
            "session_required_single_domain": "a.example,b.example", "session_required_identities": null}}]}"#;
        let found = LoginRequirements::of_answer(listed).unwrap();
        assert_eq!(query(&found), "session_required_single_domain=a.example%2Cb.example");
        let consent = r#"{"code": "ConsentRequired", "required_scopes": ["openid", "profile"]}"#;
        let found = LoginRequirements::of_answer(consent).unwrap();
        assert_eq!(found.scopes().collect::<Vec<_>>(), ["openid", "profile"]);
    }

    #[test]
    fn other_answers_ask_for_no_login() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"code": "FORBIDDEN", "reason": "no"}"#,
            r#"{"authorization_parameters": "x"}"#,
        ] {
            assert_eq!(LoginRequirements::of_answer(body), None, "{body}");
        }
    }
}
