//! Who is believed: certificates, names and protocol versions.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use waypost_link::tls::{Authority, SERVER_NAME, client_config};
use waypost_link::{Address, Listener, Stream};

/// Whether a worker with `trusted` reaches an agent of `authority`, and what each side says if not.
async fn dial(authority: &Authority, trusted: &str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tls(listener.local_addr().unwrap().to_string());
    let listener = Listener::tls(listener, authority.server_config().unwrap());
    let client = client_config(trusted).unwrap();
    let (_, dialled) = tokio::join!(
        async { listener.accept().await.unwrap().complete().await },
        Stream::connect(&address, Some(&client))
    );
    dialled.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_agent_that_was_started_again_is_trusted_with_its_earlier_certificate() {
    let first = Authority::generate().unwrap();
    let certificate = first.certificate_pem().unwrap();
    let kept = first.reveal_key_pem();
    drop(first);
    let again = Authority::from_key_pem(&kept).unwrap();
    dial(&again, &certificate).await.unwrap();
}

#[tokio::test]
async fn an_agent_of_another_endpoint_is_not_trusted() {
    let mine = Authority::generate().unwrap().certificate_pem().unwrap();
    let other = Authority::generate().unwrap();
    let error = dial(&other, &mine).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn two_authorities_are_trusted_while_a_key_is_rotated() {
    let (old, new) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let both = old.certificate_pem().unwrap() + &new.certificate_pem().unwrap();
    dial(&old, &both).await.unwrap();
    dial(&new, &both).await.unwrap();
}

async fn dial_by_hand(config: ClientConfig, name: &'static str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Listener::tls(listener, shared().server_config().unwrap());
    let (_, dialled) = tokio::join!(async { listener.accept().await.unwrap().complete().await }, async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from(name).unwrap(), stream).await
    });
    dialled.map(|_| ()).map_err(|error| error.to_string())
}

fn shared() -> &'static Authority {
    static AUTHORITY: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::generate().unwrap())
}

fn trusting_shared(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = shared().certificate_pem().unwrap();
    roots
        .add(rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    dial_by_hand(trusting_shared(&[&TLS13]), SERVER_NAME).await.unwrap();
    let error = dial_by_hand(trusting_shared(&[&TLS12]), SERVER_NAME).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn the_certificate_is_good_for_the_fixed_name_only() {
    let error = dial_by_hand(trusting_shared(&[&TLS13]), "localhost").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}
