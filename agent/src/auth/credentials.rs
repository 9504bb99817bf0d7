use secrecy::SecretString;

const ID: &str = "GLOBUS_COMPUTE_CLIENT_ID";
const SECRET: &str = "GLOBUS_COMPUTE_CLIENT_SECRET";
// The names up to 4.5; they were deprecated in 2.18.
const OLD_ID: &str = "FUNCX_SDK_CLIENT_ID";
const OLD_SECRET: &str = "FUNCX_SDK_CLIENT_SECRET";

/// Who the endpoint is to the service.
#[derive(Debug, Clone)]
pub enum Login {
    /// A confidential client, by its id and secret.
    Client(ClientCredentials),
}

/// The id and secret of a confidential client.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The client's id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
}

/// Why it is not known who the endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Half of the pair is missing.
    #[error(
        "{missing} must be set, because {present} is: both are needed to use a client identity. Set both, or unset both."
    )]
    Half {
        /// The variable that is set.
        present: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// Nothing is set.
    #[error(
        "there are no credentials: set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET to those of a registered client"
    )]
    None,
}

impl Login {
    /// Reads the login from environment variables.
    ///
    /// # Errors
    /// [`CredentialsError`] if there is none, or half of one.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CredentialsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (id_name, secret_name) = if variable(ID).is_none() && variable(SECRET).is_none() {
            (OLD_ID, OLD_SECRET)
        } else {
            (ID, SECRET)
        };
        let (id, secret) = match (variable(id_name), variable(secret_name)) {
            (Some(id), Some(secret)) => (id, secret),
            (Some(_), None) => {
                return Err(CredentialsError::Half {
                    present: id_name,
                    missing: secret_name,
                });
            }
            (None, Some(_)) => {
                return Err(CredentialsError::Half {
                    present: secret_name,
                    missing: id_name,
                });
            }
            (None, None) => return Err(CredentialsError::None),
        };
        if id_name == OLD_ID {
            tracing::warn!("{OLD_ID} and {OLD_SECRET} are deprecated; use {ID} and {SECRET} instead");
        }
        if uuid::Uuid::try_parse(&id).is_err() {
            tracing::warn!(
                "VERY LIKELY INVALID CLIENT ID: {id_name} is not a UUID (did you copy the username and not the id?)"
            );
        }
        Ok(Self::Client(ClientCredentials {
            id,
            secret: SecretString::from(secret),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(variables: &[(&str, &str)]) -> Result<Login, CredentialsError> {
        Login::from_environment(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn both_or_neither_half_must_be_set() {
        assert!(matches!(login(&[]), Err(CredentialsError::None)));
        assert!(matches!(login(&[(ID, "")]), Err(CredentialsError::None)));
        for present in [ID, SECRET, OLD_ID, OLD_SECRET] {
            let Err(CredentialsError::Half { present: named, .. }) = login(&[(present, "x")]) else {
                panic!("{present} alone is half of a pair")
            };
            assert_eq!(named, present);
        }
    }

    #[test]
    fn the_new_names_go_before_the_old() {
        let Login::Client(client) = login(&[(ID, "new"), (SECRET, "s"), (OLD_ID, "old"), (OLD_SECRET, "o")]).unwrap();
        assert_eq!(client.id, "new");
        let Login::Client(client) = login(&[(OLD_ID, "old"), (OLD_SECRET, "o")]).unwrap();
        assert_eq!(client.id, "old");
    }

    #[test]
    fn a_login_does_not_show_its_secret() {
        let login = login(&[(ID, "new"), (SECRET, "hidden")]).unwrap();
        assert!(!format!("{login:?}").contains("hidden"));
    }
}
