use url::Url;

/// Where the compute service and Globus Auth are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The compute service.
    pub compute: Url,
    /// Globus Auth, or what takes its place.
    pub auth: Url,
    /// The name of the environment, as it stands in the namespaces of stored tokens. An address of ours that has no name
    /// counts as `local`, so that nobody is sent tokens of Globus's own services.
    pub environment: String,
}

/// An address that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not an http or https address: {value:?}")]
pub struct BadAddress {
    /// The environment variable.
    variable: String,
    /// What it says.
    value: String,
}

/// Finds the services as the Globus SDKs do: `environment` and `local` come from `config.yaml`.
/// `WAYPOST_SERVICE_URL` and `WAYPOST_AUTH_URL` go first, and the former alone stands for both.
///
/// # Errors
/// [`BadAddress`] if a variable does not hold an address.
pub fn addresses(
    environment: Option<&str>,
    local: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Addresses, BadAddress> {
    let given = |name: &str| -> Result<Option<Url>, BadAddress> {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match Url::parse(&value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(url)),
            _ => Err(BadAddress {
                variable: name.to_owned(),
                value,
            }),
        }
    };
    let name = variable("GLOBUS_SDK_ENVIRONMENT").filter(|name| !name.is_empty());
    let name = environment.or(name.as_deref()).unwrap_or("production");
    let named = environment.is_some() || variable("GLOBUS_SDK_ENVIRONMENT").is_some_and(|name| !name.is_empty());
    let own = given("WAYPOST_SERVICE_URL")?;
    let own_auth = given("WAYPOST_AUTH_URL")?;
    let stored_as = if !named && (own.is_some() || own_auth.is_some()) {
        "local"
    } else {
        name
    };
    let compute = own
        .clone()
        .unwrap_or_else(|| compute(if local { "local" } else { name }));
    let auth = match (own_auth, given("GLOBUS_SDK_SERVICE_URL_AUTH")?) {
        (Some(url), _) | (None, Some(url)) => url,
        // The SDKs have no Globus Auth for a local service; an interchange is its own.
        (None, None) => own.unwrap_or_else(|| auth(name)),
    };
    Ok(Addresses {
        compute,
        auth,
        environment: stored_as.to_owned(),
    })
}

fn fixed(text: &str) -> Url {
    Url::parse(text).expect("these addresses are well formed")
}

fn compute(environment: &str) -> Url {
    match environment {
        "preview" => fixed("https://compute.api.preview.globus.org"),
        "dev" => fixed("https://api.dev.funcx.org"),
        "local" => fixed("http://localhost:5000"),
        "sandbox" | "test" | "integration" | "staging" => {
            fixed(&format!("https://compute.api.{environment}.globuscs.info"))
        }
        // Unknown names mean production, as in the SDK.
        _ => fixed("https://compute.api.globus.org"),
    }
}

fn auth(environment: &str) -> Url {
    match environment {
        "preview" => fixed("https://auth.preview.globus.org"),
        "local" => fixed("http://localhost:5000"),
        "sandbox" | "test" | "integration" | "staging" => fixed(&format!("https://auth.{environment}.globuscs.info")),
        _ => fixed("https://auth.globus.org"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        environment: Option<&str>,
        local: bool,
        variables: &[(&str, &str)],
    ) -> Result<(String, String), BadAddress> {
        addresses(environment, local, |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .map(|found| (found.compute.to_string(), found.auth.to_string()))
    }

    #[test]
    fn services_are_found_as_the_sdk_finds_them() {
        let production = (
            "https://compute.api.globus.org/".to_owned(),
            "https://auth.globus.org/".to_owned(),
        );
        assert_eq!(found(None, false, &[]), Ok(production.clone()));
        assert_eq!(
            found(None, false, &[("GLOBUS_SDK_ENVIRONMENT", "nonsense")]),
            Ok(production)
        );
        let (compute, auth) = found(
            None,
            false,
            &[
                ("GLOBUS_SDK_ENVIRONMENT", "local"),
                ("GLOBUS_SDK_SERVICE_URL_AUTH", "http://localhost:7000/"),
            ],
        )
        .unwrap();
        assert_eq!(
            (compute.as_str(), auth.as_str()),
            ("http://localhost:5000/", "http://localhost:7000/")
        );
        assert_eq!(found(Some("staging"), true, &[]).unwrap().0, "http://localhost:5000/");
        assert_eq!(
            found(Some("staging"), false, &[("GLOBUS_SDK_ENVIRONMENT", "local")])
                .unwrap()
                .0,
            "https://compute.api.staging.globuscs.info/"
        );
    }

    #[test]
    fn tokens_of_globus_are_not_stored_with_those_of_another_service() {
        let stored_as = |environment, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            addresses(environment, false, variable).unwrap().environment
        };
        let (own, auth) = (
            ("WAYPOST_SERVICE_URL", "https://site.example"),
            ("WAYPOST_AUTH_URL", "https://auth.example"),
        );
        assert_eq!(stored_as(None, &[]), "production");
        assert_eq!(stored_as(Some("staging"), &[own]), "staging");
        assert_eq!(stored_as(None, &[own]), "local");
        assert_eq!(stored_as(None, &[auth]), "local");
        assert_eq!(
            stored_as(None, &[own, ("GLOBUS_SDK_ENVIRONMENT", "production")]),
            "production"
        );
    }

    #[test]
    fn one_address_of_ours_stands_for_both_services() {
        let both = found(
            Some("staging"),
            true,
            &[("WAYPOST_SERVICE_URL", "https://site.example/gc")],
        )
        .unwrap();
        assert_eq!(
            both,
            (
                "https://site.example/gc".to_owned(),
                "https://site.example/gc".to_owned()
            )
        );
        let error = found(None, false, &[("WAYPOST_AUTH_URL", "localhost:5000")]).unwrap_err();
        assert!(error.to_string().contains("WAYPOST_AUTH_URL"));
    }
}
