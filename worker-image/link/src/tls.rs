//! TLS 1.3 for the link: one CA per endpoint, one fixed name, no addresses.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::TlsError;

/// The name in every agent's certificate. Workers check it instead of the address that they dial, which changes.
pub const SERVER_NAME: &str = "agent.waypost.internal";

/// An endpoint's certificate authority. Only its key is kept: the certificate is made anew at each start, and a
/// worker that was given an earlier one accepts what the same key signs (a trust anchor is a name and a key).
pub struct Authority {
    key: KeyPair,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// [`TlsError::Key`] if no key can be made.
    pub fn generate() -> Result<Self, TlsError> {
        Ok(Self {
            key: KeyPair::generate().map_err(TlsError::Key)?,
        })
    }

    /// An authority whose key was kept.
    ///
    /// # Errors
    /// [`TlsError::Key`] if the text is not a PKCS#8 private key in PEM.
    pub fn from_key_pem(pem: &str) -> Result<Self, TlsError> {
        Ok(Self {
            key: KeyPair::from_pem(pem).map_err(TlsError::Key)?,
        })
    }

    /// The key in PEM, to keep it. A secret.
    #[must_use]
    pub fn reveal_key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate in PEM, for the workers' `--ca-file`.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] if it cannot be signed.
    pub fn certificate_pem(&self) -> Result<String, TlsError> {
        let certificate = Self::parameters()?
            .self_signed(&self.key)
            .map_err(TlsError::Certificate)?;
        Ok(certificate.pem())
    }

    /// What an agent listens with: TLS 1.3 only, a fresh certificate for [`SERVER_NAME`]. Workers show their block's
    /// token inside the connection, so no client certificate is asked for.
    ///
    /// # Errors
    /// [`TlsError`] if the certificate cannot be made or is refused.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let parameters = Self::parameters()?;
        let issuer = Issuer::from_params(&parameters, &self.key);
        let key = KeyPair::generate().map_err(TlsError::Key)?;
        let mut server = CertificateParams::new([SERVER_NAME.to_owned()]).map_err(TlsError::Certificate)?;
        server.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let certificate = server.signed_by(&key, &issuer).map_err(TlsError::Certificate)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        Ok(Arc::new(config))
    }

    fn parameters() -> Result<CertificateParams, TlsError> {
        let mut parameters = CertificateParams::new(Vec::new()).map_err(TlsError::Certificate)?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, "waypost endpoint");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(parameters)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority(***)")
    }
}

/// What a worker dials with: TLS 1.3 only, trusting the certificates in `authority_pem` and nothing else.
///
/// # Errors
/// [`TlsError::Authority`] if there is no certificate in the text.
pub fn client_config(authority_pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| TlsError::Authority(error.to_string()))?;
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Authority("it is empty".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
