/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The compute service.
    Compute,
    /// Globus Auth itself: who am I.
    Auth,
}

const COMPUTE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";
const OPENID: &str = "openid";
const MANAGE_PROJECTS: &str = "urn:globus:auth:scope:auth.globus.org:manage_projects";

impl Scope {
    /// Both, in the order in which a login asks for them.
    pub(super) const ALL: [Self; 2] = [Self::Auth, Self::Compute];

    /// What is asked for, as the SDK does, so that it finds what it needs in a storage that both use.
    pub(super) const fn asked(self) -> &'static [&'static str] {
        match self {
            Self::Compute => &[COMPUTE],
            Self::Auth => &[OPENID, MANAGE_PROJECTS],
        }
    }

    /// What the endpoint itself needs of it.
    pub(super) const fn needed(self) -> &'static [&'static str] {
        match self {
            Self::Compute => &[COMPUTE],
            Self::Auth => &[OPENID],
        }
    }

    /// The name under which a token for it is stored.
    pub(super) const fn resource_server(self) -> &'static str {
        match self {
            Self::Compute => "funcx_service",
            Self::Auth => "auth.globus.org",
        }
    }
}
